"use strict";
// Themes, filters, sorting; then charts, each drawn over its static picture when it comes near.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // Theme: the system's, or the reader's choice, kept where the browser lets a file keep anything.
  const themes = ["auto", "light", "dark"];
  const kept = { get() { try { return localStorage.getItem("theme"); } catch { return null; } },
                 set(value) { try { localStorage.setItem("theme", value); } catch { /* a page that may not remember */ } } };
  const button = document.getElementById("theme");
  let theme = themes.includes(kept.get()) ? kept.get() : "auto";
  function dress() {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    repaint();
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    kept.set(theme);
    dress();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint());

  // Tables: a filter by text, a choice by value, sorting by column.
  function refresh(id) {
    const box = document.getElementById(id);
    const wanted = box.querySelector("[data-filter]").value.toLowerCase().split(/\s+/).filter(Boolean);
    const choice = box.querySelector("[data-choose]");
    const rows = all("tbody tr", box);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) &&
        (!choice || !choice.value || row.cells[choice.dataset.column].textContent === choice.value);
      row.hidden = !fits;
      left += fits;
    }
    box.querySelector("[data-count]").textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
  }
  for (const tools of all(".tools")) {
    const id = tools.querySelector("[data-filter]").dataset.filter;
    const choice = tools.querySelector("[data-choose]");
    if (choice) {
      const values = new Set(all("tbody tr", document.getElementById(id)).map((row) => row.cells[choice.dataset.column].textContent));
      for (const value of values) choice.append(new Option(value, value));
      choice.addEventListener("change", () => refresh(id));
    }
    tools.hidden = false;
    tools.addEventListener("input", () => refresh(id));
    refresh(id);
  }
  function sort(table, column) {
    const heading = table.tHead.rows[0].cells[column];
    const down = heading.getAttribute("aria-sort") === "ascending" ||
      (!heading.hasAttribute("aria-sort") && heading.classList.contains("n"));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => { const cell = row.cells[column]; return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort); };
    const absent = (v) => v === "–";
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    rows.sort(([a], [b]) => absent(a) - absent(b) || (down ? compare(b, a) : compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }
  for (const table of all("table[data-sortable]")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const press = document.createElement("button");
      press.type = "button";
      press.textContent = heading.textContent;
      heading.replaceChildren(press);
      press.addEventListener("click", () => sort(table, column));
    });
  }

  // The menu says where one is.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const inView = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.getAttribute("aria-labelledby"))?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const section of all("main section")) inView.observe(section);

  // Charts. The library reads a little markup in every text it is given, so text is escaped for it.
  const START = Date.UTC(2000, 0, 1); // of elapsed time: the library takes small numbers of a date axis for years
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const specs = new Map(JSON.parse(document.getElementById("chart-data").textContent).map((spec) => [spec.id, spec]));
  const drawn = new Map();

  function paint() {
    const probe = document.createElement("span");
    document.body.append(probe);
    const colours = Array.from({ length: 8 }, (_, i) => { probe.className = `s${i}`; return getComputedStyle(probe).color; });
    const of = (name) => { probe.className = ""; probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
    const found = { colours, ink: of("--ink"), soft: of("--soft"), grid: of("--grid"), rule: of("--rule"), paper: of("--paper") };
    probe.remove();
    return found;
  }
  const clear = (colour) => colour.replace(/^rgb\((.*)\)$/, "rgba($1, 0.16)");

  function trace(spec, series, colours) {
    const colour = colours[series.colour];
    const elapsed = spec.x.scale === "elapsed";
    const name = plain(series.name);
    const base = { name, x: elapsed ? series.x.map((s) => START + s * 1000) : series.x, y: series.y, showlegend: false };
    const figure = (axis, unit) => `%{${axis}:,.3~f} ${plain(unit)}`;
    if (spec.mark === "hbar") {
      return { ...base, type: "bar", orientation: "h", x: series.y, y: series.x, width: 0.4, marker: { color: colour },
               hovertemplate: `${name}: ${figure("x", spec.x.unit)}<extra></extra>` };
    }
    if (spec.mark === "dot") {
      return { ...base, type: "scatter", mode: "markers", hovertemplate: `${name}: ${figure("x", spec.x.unit)}<extra></extra>`,
               marker: { color: colour, size: 11, symbol: series.dash === "dash" ? "circle-open" : "circle", line: { width: 2, color: colour } } };
    }
    if (spec.mark === "bar") {
      return { ...base, type: "bar", width: spec.width * 1000, marker: { color: colour }, hovertemplate: figure("y", spec.y.unit) };
    }
    const line = { color: colour, width: 1.8, dash: series.dash, shape: spec.mark === "step" ? "hv" : "linear" };
    const labelled = series.labels.length > 0;
    return { ...base, type: "scatter", line, mode: !labelled && series.x.length <= 40 ? "lines+markers" : "lines", marker: { size: 4.5 },
             ...(spec.mark === "step" ? { fill: "tozeroy", fillcolor: clear(colour) } : {}),
             ...(labelled ? { customdata: series.labels } : {}),
             hovertemplate: labelled ? `%{customdata}: ${figure("y", spec.y.unit)}<extra>${name}</extra>` : figure("y", spec.y.unit) };
  }

  function axis(side, colours, spec) {
    const common = { title: { text: plain(side.title), font: { size: 12 }, standoff: 8 }, gridcolor: colours.grid, linecolor: colours.rule,
                     zeroline: false, tickfont: { size: 12 }, automargin: side === spec.y, separatethousands: true, exponentformat: "none" };
    if (side.scale === "elapsed") {
      const long = Math.max(...spec.series.flatMap((s) => s.x)) >= 3600;
      return { ...common, type: "date", tickformat: long ? "%-H:%M:%S" : "%-M:%S", hoverformat: long ? "%-H:%M:%S" : "%-M:%S" };
    }
    if (side.scale === "tail") {
      return { ...common, type: "log", tickvals: side.ticks.map(([at]) => at), ticktext: side.ticks.map(([, text]) => text) };
    }
    if (side.scale === "log") return { ...common, type: "log", tickformat: ",~g", dtick: "D2" };
    return { ...common, type: "linear", rangemode: "tozero" };
  }

  function layout(spec, colours) {
    const found = {
      height: undefined, autosize: true, margin: { l: 54, r: 14, t: 12, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colours.soft }, barmode: "stack", dragmode: "zoom",
      hovermode: spec.x.scale === "elapsed" ? "x unified" : "closest",
      hoverlabel: { bgcolor: colours.paper, bordercolor: colours.rule, font: { color: colours.ink, size: 12 } },
      xaxis: axis(spec.x, colours, spec), yaxis: { ...axis(spec.y, colours, spec), fixedrange: spec.y.scale === "category" },
    };
    if (spec.y.scale === "category") {
      found.margin.l = 14;
      found.yaxis = { showgrid: spec.mark === "dot", gridcolor: colours.grid, showticklabels: false, zeroline: false, fixedrange: true,
                      tickvals: spec.y.names.map((_, i) => i), range: [spec.y.names.length - 0.4, -0.7] };
      found.annotations = spec.y.names.map((name, i) => ({ text: plain(name), x: 0, xref: "paper", y: i - 0.27, xanchor: "left", yanchor: "bottom",
                                                           showarrow: false, font: { size: 12, color: colours.ink } }));
    }
    return found;
  }

  async function draw(figure) {
    const spec = specs.get(figure.dataset.chart);
    if (!spec || drawn.has(spec.id)) return;
    const colours = paint();
    const plot = figure.querySelector(".plot");
    const live = document.createElement("div");
    live.className = "live";
    live.style.height = `${spec.y.scale === "category" ? spec.height : Math.round(Math.max(220, plot.clientHeight))}px`;
    const state = { spec, live, hidden: new Set(), log: spec.y.scale === "log" };
    drawn.set(spec.id, state);
    plot.append(live);
    figure.classList.add("drawn");
    await Plotly.newPlot(live, spec.series.map((series) => trace(spec, series, colours.colours)), layout(spec, colours),
                         { displayModeBar: false, responsive: true, typesetMath: false, showTips: false });
    equip(figure, state);
  }

  function equip(figure, state) {
    const { spec, live } = state;
    const controls = figure.querySelector(".controls");
    const add = (text, label, press) => {
      const one = document.createElement("button");
      one.type = "button";
      one.textContent = text;
      one.setAttribute("aria-label", `${label}: ${spec.title}`);
      one.addEventListener("click", () => press(one));
      controls.append(one);
      return one;
    };
    if (spec.mark === "line") {
      add("Log", "Log scale", (one) => {
        state.log = !state.log;
        one.setAttribute("aria-pressed", state.log);
        Plotly.relayout(live, { "yaxis.type": state.log ? "log" : "linear", "yaxis.autorange": true, "yaxis.tickformat": ",~g" });
      }).setAttribute("aria-pressed", state.log);
    }
    if (spec.y.scale !== "category") {
      add("Reset", "Reset zoom", () => Plotly.relayout(live, { "xaxis.autorange": true, "yaxis.autorange": true }));
    }
    add("PNG", "Save as PNG", () => Plotly.downloadImage(live, { format: "png", filename: spec.id, width: 1000, height: 480, scale: 2 }));
    controls.hidden = false;
    if (spec.series.length < 2) return;
    all(".legend li", figure).forEach((item, i) => {
      const press = document.createElement("button");
      press.type = "button";
      press.append(...item.childNodes);
      press.setAttribute("aria-pressed", "true");
      press.addEventListener("click", () => {
        if (!state.hidden.delete(i)) state.hidden.add(i);
        press.setAttribute("aria-pressed", !state.hidden.has(i));
        Plotly.restyle(live, { visible: !state.hidden.has(i) }, [i]);
      });
      item.append(press);
    });
  }

  function repaint() {
    if (!drawn.size) return;
    const colours = paint();
    for (const { spec, live, hidden, log } of drawn.values()) {
      const traces = spec.series.map((series, i) => ({ ...trace(spec, series, colours.colours), visible: !hidden.has(i) }));
      const dressed = layout(spec, colours);
      if (spec.mark === "line") dressed.yaxis = { ...dressed.yaxis, type: log ? "log" : "linear", tickformat: ",~g" };
      Plotly.react(live, traces, dressed);
    }
  }

  // The library costs a second or two to start, in which nothing else happens. So it starts when somebody reaches for a chart,
  // or after half a second, in which first clicks are answered; until then the charts are static. They are drawn one by one, the nearest first.
  const LOOK_AROUND_MS = 500;
  let started = false;
  function begin() {
    if (started) return;
    started = true;
    start();
  }
  const pause = () => new Promise((resume) => setTimeout(resume));
  function start() {
    const parked = document.getElementById("library");
    const script = document.createElement("script");
    script.addEventListener("load", watch);
    if (parked.dataset.src) script.src = parked.dataset.src; else script.textContent = parked.textContent;
    document.head.append(script);
    parked.remove();
    if (!script.src) watch();
  }

  let queue = Promise.resolve();
  function watch() {
    const near = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        queue = queue.then(() => draw(target)).then(pause);
      }
    }, { rootMargin: "150px" });
    for (const figure of all("figure[data-chart]")) near.observe(figure);
  }

  dress();
  if (specs.size) {
    for (const figure of all("figure[data-chart]")) {
      for (const kind of ["pointerenter", "focusin"]) figure.addEventListener(kind, begin, { once: true });
    }
    setTimeout(begin, LOOK_AROUND_MS);
  }
})();
