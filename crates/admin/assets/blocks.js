// What a block would mean, said while the address is typed; and lists read from a file.
(() => {
  "use strict";
  const PAUSE_MS = 300;

  const say = (place, lines, className) => {
    for (const line of lines) {
      const paragraph = document.createElement("p");
      paragraph.className = className;
      paragraph.textContent = line;
      place.append(paragraph);
    }
  };

  const watch = (form) => {
    const field = form.querySelector("[name=network]");
    const place = form.querySelector("#check");
    const problem = form.querySelector("#whom-problem");
    let timer = 0;
    let asked = "";
    const check = async () => {
      const text = field.value.trim();
      asked = text;
      place.replaceChildren();
      problem.hidden = true;
      field.removeAttribute("aria-invalid");
      if (!text) return;
      const response = await fetch(`${form.dataset.check}?network=${encodeURIComponent(text)}`);
      if (!response.ok || asked !== text) return;
      const said = await response.json();
      if (said.problem) {
        problem.textContent = said.problem;
        problem.hidden = false;
        field.setAttribute("aria-invalid", "true");
      }
      say(place, said.says, "hint");
      say(place, said.objections.map((objection) => `Mind that ${objection}.`), "text-warn");
    };
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { check().catch(() => { /* Said by the server when the form is sent. */ }); }, PAUSE_MS);
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    for (const form of document.querySelectorAll("form[data-check]")) watch(form);
    for (const choice of document.querySelectorAll("[data-file-choice]")) {
      const input = choice.querySelector("input[type=file]");
      input.addEventListener("change", async () => {
        const [file] = input.files;
        if (file) document.getElementById(input.dataset.into).value = await file.text();
      });
    }
  });
})();
