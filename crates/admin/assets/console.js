// What every page gets: the theme, times in the reader's own zone, questions before what cannot be undone.
// Pages work without it.
(() => {
  "use strict";
  const root = document.documentElement;
  const THEMES = ["auto", "light", "dark"];

  const theme = () => {
    try { return localStorage.getItem("theme") || "auto"; } catch { return "auto"; }
  };
  const apply = (name) => {
    if (name === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", name);
  };
  // Before the first paint, as the times below: nothing on a page moves once it is seen.
  apply(theme());
  root.classList.add("has-script");

  const two = (n) => String(n).padStart(2, "0");
  // The same form as the server's, in the zone of the reader.
  const local = (date) =>
    `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;

  // What the parser has come past: it may still add to an element that nothing follows yet.
  const isWhole = (element) => {
    for (let node = element; node; node = node.parentNode) if (node.nextSibling) return true;
    return document.readyState !== "loading";
  };
  const localise = (within) => {
    for (const time of within.querySelectorAll("time[datetime]:not([data-local])")) {
      const date = new Date(time.dateTime);
      if (Number.isNaN(date.getTime()) || !isWhole(time)) continue;
      time.dataset.local = "";
      if (time.classList.contains("relative")) {
        time.title = local(date);
      } else {
        time.title = `${time.textContent} `.trim();
        time.textContent = local(date);
      }
    }
  };
  // For the scripts of single pages, which add rows.
  window.portcullis = { localise };

  const parsed = new MutationObserver(() => localise(document));
  parsed.observe(root, { childList: true, subtree: true });
  document.addEventListener("DOMContentLoaded", () => {
    parsed.disconnect();
    localise(document);
    for (const button of document.querySelectorAll("[data-theme-switch]")) {
      const show = (name) => { button.textContent = `Theme: ${name}`; };
      show(theme());
      button.addEventListener("click", () => {
        const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
        try { localStorage.setItem("theme", next); } catch { /* Only this page then. */ }
        apply(next);
        show(next);
      });
    }
    // Forms that ask first: data-confirm is the question.
    document.addEventListener("submit", (event) => {
      const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
      if (question && !window.confirm(question)) event.preventDefault();
    });
    // A box that ticks all boxes of its table.
    for (const all of document.querySelectorAll("input[data-select-all]")) {
      all.addEventListener("change", () => {
        for (const box of all.closest("form, table").querySelectorAll(`input[name="${all.dataset.selectAll}"]`)) {
          box.checked = all.checked;
        }
      });
    }
  });
})();
