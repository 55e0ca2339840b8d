// The figures of this second: they come by themselves while the page is seen and nobody has paused them.
(() => {
  "use strict";
  // A bar of a chart leads to where its row of numbers leads.
  for (const chart of document.querySelectorAll(".chart")) {
    const bars = [...chart.querySelectorAll(".reach")];
    const links = chart.querySelectorAll(".numbers tbody a");
    chart.querySelector(".bars")?.setAttribute("data-linked", "");
    bars.forEach((bar, at) => bar.addEventListener("click", () => links[at]?.click()));
  }

  const panel = document.querySelector("[data-live]");
  if (!panel || !window.EventSource) return;
  const state = panel.querySelector("[data-live-state]");
  const pause = panel.querySelector("[data-live-pause]");
  const spark = panel.querySelector("[data-live-spark]");
  const figures = panel.querySelectorAll("[data-live-figure]");
  const SECONDS = 60;
  const SVG = "http://www.w3.org/2000/svg";
  const rates = [];
  let source = null;
  let isPaused = false;

  const say = (text) => { if (state.textContent !== text) state.textContent = text; };
  const text = (n) => n.toLocaleString("en-GB", { maximumFractionDigits: n < 10 ? 1 : 0 });

  // A bar for each second; what was refused stands out at its foot.
  const draw = () => {
    const top = Math.max(1, ...rates.map((rate) => rate.requests));
    const bars = rates.flatMap((rate, at) => [["accent", rate.requests], ["bad", rate.requests - rate.served]]
      .filter(([, value]) => value > 0)
      .map(([colour, value]) => {
        const bar = document.createElementNS(SVG, "rect");
        const height = (value / top) * 20;
        const place = { class: colour, x: SECONDS - rates.length + at + 0.1, width: 0.8, y: 20 - height, height };
        for (const [name, is] of Object.entries(place)) bar.setAttribute(name, is);
        return bar;
      }));
    spark.replaceChildren(...bars);
  };

  const show = (event) => {
    const now = JSON.parse(event.data);
    for (const figure of figures) figure.textContent = text(now[figure.dataset.liveFigure]);
    rates.push(now);
    if (rates.length > SECONDS) rates.shift();
    draw();
    say("Live, every second");
  };

  const stop = (why) => {
    source?.close();
    source = null;
    say(why);
  };
  const start = () => {
    if (source || isPaused || document.hidden) return;
    say("Connecting");
    source = new EventSource(panel.dataset.live);
    source.addEventListener("figures", show);
    source.addEventListener("error", () => {
      // The browser tries again by itself, unless the answer was a refusal.
      if (source?.readyState === EventSource.CLOSED) stop("Not live: too many pages listen, or you have been signed out. Load the page again.");
      else say("Connecting again");
    });
  };

  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    if (isPaused) stop("Paused"); else start();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) stop("Paused while the page is hidden"); else start();
  });
  start();
})();
