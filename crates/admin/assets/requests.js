// The page of requests: filters while typing, the live tail, exports with progress, columns that are remembered.
(() => {
  "use strict";
  const form = document.getElementById("filters");
  if (!form) return;
  const MAX_ROWS = 200;
  const results = () => document.getElementById("results");
  const tools = () => document.querySelector("[data-tools]");

  // What the form asks for, without what is left open.
  const USUAL = [...form.querySelectorAll("input[name=column]")].filter((box) => box.dataset.usual !== undefined);
  const columns = () => [...form.querySelectorAll("input[name=column]:checked")].map((box) => box.value);
  const isUsual = () => columns().join() === USUAL.map((box) => box.value).join();
  const asked = () => {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (value !== "" && !(name === "column" && isUsual())) query.append(name, value);
    }
    const text = query.toString();
    return text ? `/requests?${text}` : "/requests";
  };

  // Filters while typing: the same page is asked for, and its results take the place of these.
  let timer = 0;
  let asking = null;
  const refresh = async () => {
    asking?.abort();
    asking = new AbortController();
    const address = asked();
    results().classList.add("waiting");
    try {
      const answer = await fetch(address, { signal: asking.signal, redirect: "error" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("results");
      if (!fresh) return location.assign(address);
      stopTail("");
      results().replaceWith(fresh);
      window.portcullis.localise(fresh);
      for (const fault of form.querySelectorAll("[data-fault]")) {
        const now = page.getElementById(fault.id);
        fault.textContent = now?.textContent ?? "";
        fault.hidden = !now || now.hidden;
        const field = fault.parentElement.querySelector("input");
        if (field && fault.hidden) field.removeAttribute("aria-invalid"); else field?.setAttribute("aria-invalid", "true");
      }
      const freshTools = page.querySelector("[data-tools]");
      if (freshTools && tools()) tools().replaceWith(freshTools); else if (freshTools) form.after(freshTools); else tools()?.remove();
      setUp();
      history.replaceState(null, "", address);
    } catch (error) {
      if (error.name !== "AbortError") location.assign(address);
    } finally {
      results().classList.remove("waiting");
    }
  };
  const soon = (wait) => { clearTimeout(timer); timer = setTimeout(refresh, wait); };
  form.addEventListener("input", (event) => soon(event.target.type === "text" ? 350 : 0));
  form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); refresh(); });

  // Columns: those that were chosen last, where the address does not say.
  const KEY = "columns";
  form.addEventListener("change", (event) => {
    if (event.target.name !== "column") return;
    try { localStorage.setItem(KEY, columns().join()); } catch { /* Only in the address then. */ }
  });
  const remembered = () => {
    try { return (localStorage.getItem(KEY) ?? "").split(",").filter(Boolean); } catch { return []; }
  };
  const wanted = remembered();
  if (wanted.length && !new URLSearchParams(location.search).has("column") && wanted.join() !== columns().join()) {
    for (const box of form.querySelectorAll("input[name=column]")) box.checked = wanted.includes(box.value);
    if (columns().length) refresh();
  }

  // The live tail: new rows above the others.
  let tail = null;
  let isFollowing = false;
  const say = (text) => { const state = tools()?.querySelector("[data-tail-state]"); if (state) state.textContent = text; };
  const button = () => tools()?.querySelector("[data-tail]");
  const mark = () => {
    const follow = button();
    if (!follow) return;
    follow.setAttribute("aria-pressed", String(isFollowing));
    follow.textContent = isFollowing ? "Pause" : "Follow live";
  };
  const disconnect = () => { tail?.close(); tail = null; };
  const stopTail = (why) => { isFollowing = false; disconnect(); mark(); say(why); };
  const add = (event) => {
    const body = results().querySelector("[data-rows]");
    if (!body) return;
    const told = JSON.parse(event.data);
    // Written by the server, which has escaped whatever clients sent.
    const template = document.createElement("template");
    template.innerHTML = told.rows;
    const rows = [...template.content.children];
    rows.forEach((row) => row.classList.add("new"));
    body.prepend(...rows);
    window.portcullis.localise(body);
    while (body.rows.length > MAX_ROWS) body.lastElementChild.remove();
    results().querySelector(".empty")?.remove();
    say(told.has_skipped ? "Live; more come than are shown" : "Live");
  };
  const connect = () => {
    if (!isFollowing || tail || document.hidden) return;
    tail = new EventSource(button().dataset.tail);
    tail.addEventListener("rows", add);
    tail.addEventListener("open", () => say("Live"));
    tail.addEventListener("error", () => {
      if (tail?.readyState === EventSource.CLOSED) stopTail("Not live: too many pages listen, or you have been signed out.");
      else say("Connecting again");
    });
  };

  // Exports: how much has come, and a way to stop.
  let exporting = null;
  const size = (n) => n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`;
  const save = async (link) => {
    const box = tools().querySelector("[data-progress]");
    const text = box.querySelector("[data-progress-text]");
    exporting = new AbortController();
    box.hidden = false;
    text.textContent = "Exporting";
    const parts = [];
    let bytes = 0;
    let lines = 0;
    try {
      const answer = await fetch(link.href, { signal: exporting.signal });
      if (!answer.ok) throw new Error(new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main p:not(.brand)")?.textContent ?? "refused");
      const name = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "requests";
      const reader = answer.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parts.push(value);
        bytes += value.length;
        for (const byte of value) if (byte === 10) lines += 1;
        text.textContent = `${lines.toLocaleString("en-GB")} rows, ${size(bytes)}`;
      }
      const file = document.createElement("a");
      file.href = URL.createObjectURL(new Blob(parts));
      file.download = name;
      file.click();
      setTimeout(() => URL.revokeObjectURL(file.href), 60_000);
      text.textContent = `Done: ${lines.toLocaleString("en-GB")} lines, ${size(bytes)}`;
    } catch (error) {
      text.textContent = error.name === "AbortError" ? "Cancelled" : `The export failed: ${error.message}`;
    } finally {
      exporting = null;
      const cancel = box.querySelector("[data-progress-cancel]");
      cancel.textContent = "Close";
    }
  };

  const setUp = () => {
    const follow = button();
    if (!follow) return;
    follow.addEventListener("click", () => {
      if (isFollowing) return stopTail("Paused");
      // Rows of now do not belong above those of then.
      if (new URLSearchParams(location.search).has("before")) return location.assign(asked());
      isFollowing = true;
      mark();
      say("Connecting");
      connect();
    });
    for (const link of tools().querySelectorAll("[data-export]")) {
      link.addEventListener("click", (event) => {
        if (exporting || event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        tools().querySelector("[data-progress-cancel]").textContent = "Cancel";
        save(link);
      });
    }
    tools().querySelector("[data-progress-cancel]").addEventListener("click", () => {
      if (exporting) exporting.abort(); else tools().querySelector("[data-progress]").hidden = true;
    });
  };
  document.addEventListener("visibilitychange", () => { if (document.hidden) disconnect(); else connect(); });
  setUp();
})();
