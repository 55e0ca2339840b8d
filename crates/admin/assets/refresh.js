// Looks again at a part of the page while something is going on there: data-refresh is the wait in milliseconds.
// Without it people load the page again.
(() => {
  "use strict";
  const WAIT_AFTER_FAILURE = 5000;

  const watch = (part) => {
    const wait = Number(part.dataset.refresh);
    if (wait > 0) setTimeout(() => look(part), wait);
  };
  const look = async (part) => {
    // Whoever is typing or has something selected there is left alone.
    if (document.hidden || part.contains(document.activeElement)) return watch(part);
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      if (!fresh) return;
      part.replaceWith(document.adoptNode(fresh));
      window.portcullis.localise(fresh);
      watch(fresh);
    } catch {
      setTimeout(() => look(part), WAIT_AFTER_FAILURE);
    }
  };
  for (const part of document.querySelectorAll("[data-refresh][id]")) watch(part);
})();
