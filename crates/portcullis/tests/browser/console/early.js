// Runs in every page before anything of it: notes what must not happen.
(() => {
  const seen = { violations: [], hits: [], shifts: [] };
  Object.defineProperty(window, "__seen", { value: seen });
  addEventListener("securitypolicyviolation", (event) => {
    seen.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`);
  });
  // What the hostile texts of the tests would do if they were run.
  const hit = (how) => () => { seen.hits.push(`${how} on ${location.pathname}`); return () => {}; };
  Object.defineProperty(window, "__hit", { get: hit("read"), set: hit("set") });
  for (const name of ["alert", "prompt", "print"]) window[name] = hit(name);
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries().filter((entry) => !entry.hadRecentInput)) {
      const parts = entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 80) ?? "?");
      seen.shifts.push(`${entry.value.toFixed(4)} at ${entry.startTime.toFixed(0)} ms: ${parts.join(" | ")}`);
    }
  }).observe({ type: "layout-shift", buffered: true });
})();
