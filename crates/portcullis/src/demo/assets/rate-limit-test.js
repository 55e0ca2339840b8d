"use strict";

// Asks for its own page again and lists what came back, so that a limit can be watched as it runs out.
const rows = document.querySelector("#answers");
let sent = 0;

async function ask() {
  const answer = await fetch(location.pathname, { cache: "no-store", headers: { Accept: "application/json" } });
  sent += 1;
  const cells = [
    sent,
    answer.status,
    answer.headers.get("RateLimit") ?? "-",
    answer.headers.get("Retry-After") ?? "-",
    answer.headers.get("X-Portcullis-Decision") ?? "-",
  ];
  const row = rows.insertRow(0);
  for (const text of cells) row.insertCell().textContent = text;
  while (rows.rows.length > 20) rows.deleteRow(-1);
}

document.querySelector("#ask").addEventListener("click", () => {
  ask().catch((problem) => {
    rows.insertRow(0).insertCell().textContent = `no answer: ${problem.message}`;
  });
});
