"use strict";
// Follows a run: figures and curves from server-sent events, one a second; at the end loads the report in their place.
(() => {
  const WINDOW = 300, HEIGHT = 210, RIGHT = 14, TOP = 10, BOTTOM = 24, CHARACTER = 7.5;
  const byId = (id) => document.getElementById(id);
  const updates = [];

  const figure = (value) => value === null || value === undefined ? "–"
    : value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2 });
  const ms = (value) => value === null || value === undefined ? "–" : `${figure(value)} ms`;
  const clock = (s) => { const whole = Math.round(s); const two = (n) => String(n).padStart(2, "0");
    return whole >= 3600 ? `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}` : `${Math.floor(whole / 60)}:${two(whole % 60)}`; };

  const figures = {
    elapsed: (u) => clock(u.elapsed_s), planned: (u) => u.planned_s ? `of ${clock(u.planned_s)}` : "", rate: (u) => figure(u.responses_per_s),
    requests: (u) => figure(u.requests), errors: (u) => figure(u.errors), vus: (u) => figure(u.active_vus),
    p50: (u) => ms(u.response_ms?.p50), p95: (u) => ms(u.response_ms?.p95), p99: (u) => ms(u.response_ms?.p99),
    pool: (u) => ms(u.pool_wait_ms?.p95), lag: (u) => ms(u.start_lag_ms?.p99),
  };
  const charts = [
    ["Throughput, per second", [["answers", 0, (u) => u.responses_per_s], ["errors", 4, (u) => u.errors_per_s]]],
    ["Response time, ms", [["p50", 0, (u) => u.response_ms?.p50], ["p95", 3, (u) => u.response_ms?.p95], ["p99", 1, (u) => u.response_ms?.p99]]],
    ["Virtual users active", [["users", 2, (u) => u.active_vus]]],
    ["Waiting, ms", [["pool wait p95", 1, (u) => u.pool_wait_ms?.p95], ["start lag p99", 7, (u) => u.start_lag_ms?.p99]]],
  ].map(([title, series]) => ({ title, series, ...frame(title, series) }));

  function element(name, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "text", "g", "circle"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function frame(title, series) {
    const values = series.map(() => element("b"));
    const legend = element("ul", { class: "legend" }, ...series.map(([name, colour], i) =>
      element("li", {}, element("i", { class: `s${colour}` }), name, values[i])));
    const drawing = element("svg", { width: "100%", height: HEIGHT, "aria-hidden": "true" });
    const plot = element("div", { class: "plot", role: "img", "aria-label": title }, drawing);
    byId("charts").append(element("figure", { class: "chart" }, element("figcaption", {}, title), legend, plot));
    return { drawing, plot, values };
  }

  function step(span, parts) {
    const power = 10 ** Math.floor(Math.log10(span / parts));
    return [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= parts + 1e-9);
  }
  const timeStep = (span, parts) => [1, 5, 10, 15, 30, 60, 120, 300].find((s) => span / s <= parts) ?? 600;

  function draw({ series, drawing, plot, values, title }) {
    const from = updates[0].elapsed_s, to = Math.max(updates.at(-1).elapsed_s, from + 10);
    const lines = series.map(([, , read]) => updates.map((u) => [u.elapsed_s, read(u) ?? null]));
    const most = Math.max(...lines.flat().map(([, v]) => v ?? 0)) || 1;
    const tick = step(most, 4), top = Math.ceil(most / tick - 1e-9) * tick;
    const width = drawing.clientWidth;
    // On paper, which may be narrower than the screen, the drawing is made smaller.
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const left = Math.max(...Array.from({ length: Math.round(top / tick) + 1 }, (_, i) => figure(i * tick).length)) * CHARACTER + 10;
    const x = (t) => left + (width - left - RIGHT) * (t - from) / (to - from);
    const y = (v) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * v / top;
    const parts = [];
    for (let v = 0; v <= top + tick / 2; v += tick) {
      parts.push(element("line", { class: "grid", x1: left, x2: width - RIGHT, y1: y(v), y2: y(v) }),
                 element("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, figure(v)));
    }
    const every = timeStep(to - from, width / 70);
    for (let t = Math.ceil(from / every) * every; t <= to; t += every) {
      parts.push(element("text", { x: x(t), y: HEIGHT - 6, "text-anchor": "middle" }, clock(t)));
    }
    lines.forEach((points, i) => {
      let pen = "M", path = "";
      for (const [t, v] of points) {
        if (v === null) { pen = "M"; continue; }
        path += `${pen}${x(t).toFixed(1)},${y(v).toFixed(1)}`;
        pen = "L";
      }
      parts.push(element("path", { class: `line s${series[i][1]}`, d: path }));
      const last = points.at(-1);
      if (last[1] !== null) parts.push(element("circle", { class: `fill s${series[i][1]}`, cx: x(last[0]), cy: y(last[1]), r: 3 }));
      values[i].textContent = figure(last[1]);
    });
    drawing.replaceChildren(...parts);
    plot.setAttribute("aria-label", `${title}: ${series.map(([name], i) => `${name} ${values[i].textContent}`).join(", ")}`);
  }

  let waiting = false;
  function show() {
    waiting = false;
    const now = updates.at(-1);
    for (const [name, text] of Object.entries(figures)) document.querySelector(`[data-figure="${name}"]`).textContent = text(now);
    document.querySelector('[data-figure="errors"]').parentElement.className = now.errors ? "bad" : "";
    if (now.planned_s) {
      const bar = byId("progress");
      bar.hidden = false;
      bar.max = now.planned_s;
      bar.value = Math.min(now.elapsed_s, now.planned_s);
    }
    charts.forEach(draw);
    rows("errors", now.errors_by_kind ?? [], ([kind, count]) => [kind, figure(count)]);
    const kinds = (each) => each.kinds.map(([kind, count]) => `${kind}: ${figure(count)}`).join(", ") || "–";
    rows("endpoints", now.endpoints ?? [], (e) => [e.name, figure(e.answers), ms(e.p50), ms(e.p95), ms(e.p99), kinds(e)]);
  }

  function rows(id, items, cells) {
    const section = byId(id), heads = [...section.querySelectorAll("thead th")];
    (id === "errors" ? section : section.querySelector(".scroll")).hidden = !items.length;
    if (id === "endpoints") byId("no-endpoints").hidden = items.length > 0;
    section.querySelector("tbody").replaceChildren(...items.map((item) => element("tr", {}, ...cells(item).map((text, i) =>
      i ? element("td", { class: heads[i].className }, text) : element("th", { class: "t", scope: "row" }, text)))));
  }

  addEventListener("resize", () => { if (updates.length) charts.forEach(draw); });

  const say = (text) => { if (byId("state").textContent !== text) byId("state").textContent = text; };
  const source = new EventSource("events");
  source.onmessage = (event) => {
    const update = JSON.parse(event.data);
    if (updates.length && update.elapsed_s < updates.at(-1).elapsed_s) updates.length = 0;
    updates.push(update);
    if (updates.length > WINDOW) updates.shift();
    say(update.workers > 1 ? `Running, ${update.workers} workers` : "Running");
    if (!waiting) { waiting = true; requestAnimationFrame(show); }
  };
  source.onerror = () => say("Connection lost; trying again …");
  source.addEventListener("finished", () => {
    source.close();
    say("Finished; loading the report …");
    location.replace(location.pathname);
  });

  byId("token").value = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
  byId("stop").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await fetch("stop", { method: "POST", body: byId("token").value, headers: { "Content-Type": "text/plain" } });
      byId("answer").textContent = (await answer.text()).trim();
    } catch {
      byId("answer").textContent = "The run cannot be reached.";
    }
  });
})();
