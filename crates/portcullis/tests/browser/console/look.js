// What a page is like once it is there.
const seen = window.__seen;
const page = document.documentElement;
// Whatever sticks out of the page, apart from what scrolls by itself.
const scrolls = (element) => {
  for (let up = element.parentElement; up; up = up.parentElement) {
    if (getComputedStyle(up).overflowX !== "visible") return true;
  }
  return false;
};
const wide = page.scrollWidth > page.clientWidth;
const sticking = !wide ? [] : [...document.body.querySelectorAll("*")]
  .filter((element) => element.getBoundingClientRect().right > page.clientWidth + 1 && !scrolls(element))
  .map((element) => element.outerHTML.slice(0, 120));
const unlabelled = [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
  .filter((field) => !field.labels?.length && !field.getAttribute("aria-label") && !field.getAttribute("aria-labelledby"))
  .map((field) => field.outerHTML);
const badTables = [...document.querySelectorAll("table")].flatMap((table) => {
  const heads = [...(table.tHead?.rows[0]?.cells ?? [])];
  const columns = heads.length;
  const broken = [...table.tBodies].flatMap((body) => [...body.rows])
    .filter((row) => columns && [...row.cells].reduce((sum, cell) => sum + cell.colSpan, 0) !== columns);
  const unscoped = [...table.querySelectorAll("th:not([scope])")];
  const wrap = table.closest(".table-wrap");
  const isReachable = wrap?.tabIndex === 0 && wrap.getAttribute("aria-label");
  return [...broken, ...unscoped].map((part) => part.outerHTML.slice(0, 200)).concat(isReachable ? [] : ["a table outside of .table-wrap"]);
});
return {
  violations: seen.violations,
  hits: seen.hits,
  shifts: seen.shifts,
  wide: wide ? [`${page.scrollWidth} > ${page.clientWidth}`, ...sticking] : [],
  headings: document.querySelectorAll("h1").length,
  title: document.title,
  unlabelled,
  badTables,
};
