"use strict";
// Themes, filters, sorting; then what can be done with charts: reading values, switching scales, hiding series, saving.
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
  }
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    kept.set(theme);
    dress();
  });

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

  // What a link leads to is unfolded; on paper, all is.
  function unfold() {
    const wanted = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    for (let part = wanted; part; part = part.parentElement?.closest("details")) if (part.tagName === "DETAILS") part.open = true;
    if (wanted) wanted.scrollIntoView();
  }
  addEventListener("hashchange", unfold);
  unfold();
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])").filter((part) => !part.closest(".chart"));
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });

  // Charts are drawn in the page already. The table beneath each holds its figures; the drawing says where they stand.
  const SVG = "http://www.w3.org/2000/svg";
  const ACROSS = 2000;

  function make(name, attributes = {}, ...children) {
    const made = ["svg", "rect", "text", "tspan", "path", "g"].includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function chartOf(figure) {
    const plot = figure.querySelector(".plot");
    const at = plot.querySelector(".at");
    const cells = (row) => [...row.cells].map((cell) => cell.textContent);
    const table = figure.querySelector("table.data");
    return {
      figure, plot, table, drawing: plot.querySelector(".drawing"),
      title: figure.querySelector("figcaption").firstChild.textContent.trim(),
      places: at.dataset.at.split(" ").filter(Boolean).map(Number),
      bins: at.dataset.bins === "1", row: Number(at.dataset.row ?? 0), lying: at.dataset.row !== undefined,
      names: cells(table.tHead.rows[0]).slice(1),
      texts: (i) => cells(table.tBodies[0].rows[i]),
      colours: [...plot.querySelectorAll("[data-series]")].reduce((found, mark) => {
        found[mark.dataset.series] ??= [...mark.classList].find((name) => /^s\d$/.test(name));
        return found;
      }, []),
      hidden: new Set(), shown: -1,
    };
  }

  const numberOf = (text) => text === "–" ? null : Number(text.replace(/,/g, ""));

  // Where a value stands, in shares of the plot's height from above; null where nothing is drawn for it.
  function heightOf(chart, value) {
    if (value === null || !chart.plot.querySelector(".line")) return null;
    const { low, high, log } = chart.plot.querySelector(chart.figure.classList.contains("switched") ? ".other" : ".on").dataset;
    const scaled = log === "1" ? Math.log10 : (v) => v;
    return 1 - (scaled(value) - scaled(Number(low))) / (scaled(Number(high)) - scaled(Number(low)));
  }

  function nearest(chart, event) {
    const box = chart.drawing.getBoundingClientRect();
    const at = chart.lying ? event.clientY - box.top : (event.clientX - box.left) / box.width * ACROSS;
    const after = chart.places.findIndex((place) => place > at);
    const next = after < 0 ? chart.places.length : after;
    if (chart.bins || next === 0) return Math.max(0, next - 1);
    return next < chart.places.length && chart.places[next] - at < at - chart.places[next - 1] ? next : next - 1;
  }

  function show(chart, i, aloud) {
    if (i === chart.shown && !aloud) return;
    hide(chart);
    chart.shown = i;
    const [label, ...texts] = chart.texts(i);
    const { offsetLeft: left, offsetTop: top, offsetWidth: width, offsetHeight: height } = areaOf(chart);
    const unit = chart.plot.dataset.unit;
    const from = chart.places[i], to = chart.bins ? chart.places[i + 1] ?? ACROSS : from;
    const guide = make("div", { class: "guide" });
    const tip = make("div", { class: "tip", ...(aloud ? { role: "status" } : {}) }, make("b", {}, label));
    chart.names.forEach((name, k) => {
      if (chart.hidden.has(k)) return;
      tip.append(make("span", {}, make("i", { class: chart.colours[k] ?? "" }), name, make("em", {}, texts[k] === "–" ? "–" : `${texts[k]} ${unit}`)));
      const y = heightOf(chart, numberOf(texts[k]));
      if (y === null || chart.lying) return;
      const dot = make("i", { class: chart.colours[k] ?? "" });
      dot.style.top = `${y * height}px`;
      dot.style.left = `${(to - from) / 2 / ACROSS * width}px`;
      guide.append(dot);
    });
    const x = chart.lying ? 0 : from / ACROSS * width;
    Object.assign(guide.style, chart.lying ? { left: `${left}px`, top: `${top + from}px`, height: `${chart.row}px`, width: `${width}px`, border: "0" }
      : { left: `${left + x}px`, top: `${top}px`, height: `${height}px`, width: `${(to - from) / ACROSS * width}px` });
    guide.classList.toggle("band", chart.bins || chart.lying);
    chart.plot.append(guide, tip);
    const middle = left + (chart.lying ? width / 2 : x + (to - from) / 2 / ACROSS * width);
    const side = middle < chart.plot.clientWidth / 2 ? middle + 14 : middle - 14 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(side, chart.plot.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${chart.lying ? top + from + chart.row + 2 : top + 6}px`;
  }

  function areaOf({ plot, drawing }) {
    const box = plot.getBoundingClientRect(), inner = drawing.getBoundingClientRect();
    return { offsetLeft: inner.left - box.left, offsetTop: inner.top - box.top, offsetWidth: inner.width, offsetHeight: inner.height };
  }

  function hide(chart) {
    chart.shown = -1;
    for (const one of all(".guide, .tip", chart.plot)) one.remove();
  }

  function readable(chart) {
    const last = chart.places.length - 1;
    if (last < 0) return;
    const keys = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    chart.plot.tabIndex = 0;
    chart.plot.setAttribute("role", "group");
    chart.plot.setAttribute("aria-label", `${chart.title}: arrow keys read its values`);
    for (const kind of ["pointermove", "pointerdown"]) chart.plot.addEventListener(kind, (event) => show(chart, nearest(chart, event)));
    // What a finger has touched stays until another place is touched.
    chart.plot.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(chart); });
    chart.plot.addEventListener("blur", () => hide(chart));
    chart.plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide(chart);
      const step = keys[event.key];
      if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const from = chart.shown < 0 ? (step < 0 ? last + 1 : -1) : chart.shown;
      show(chart, Math.min(last, Math.max(0, from + step)), true);
    });
  }

  function pressing(text, label, press, pressed) {
    const one = make("button", { type: "button", "aria-label": label, ...(pressed === undefined ? {} : { "aria-pressed": pressed }) }, text);
    one.addEventListener("click", () => press(one));
    return one;
  }

  function switching(chart) {
    if (!chart.plot.querySelector(".other")) return;
    const first = chart.plot.querySelector(".on").dataset.log === "1";
    const button = pressing("Log", `Log scale: ${chart.title}`, (one) => {
      const other = chart.figure.classList.toggle("switched");
      one.setAttribute("aria-pressed", other !== first);
      hide(chart);
    }, first);
    button.className = "scale";
    chart.figure.querySelector("figcaption").after(button);
  }

  function hiding(chart) {
    all(".legend li", chart.figure).forEach((item, i) => {
      const press = make("button", { type: "button", "aria-pressed": "true" }, ...item.childNodes);
      press.addEventListener("click", () => {
        if (!chart.hidden.delete(i)) chart.hidden.add(i);
        press.setAttribute("aria-pressed", !chart.hidden.has(i));
        for (const mark of all(`[data-series="${i}"]`, chart.plot)) mark.classList.toggle("hidden", chart.hidden.has(i));
        hide(chart);
      });
      item.append(press);
    });
  }

  // Saving: the figures as CSV, the drawing with its title and legend as a file of its own, in the colours it has here.
  const WIDE = 720, HEAD = 52;
  const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "vector-effect",
                  "font-family", "font-size", "font-weight"];

  // `thick`: how many times the picture is enlarged by, since strokes that do not grow with it must be made thicker.
  function picture(chart, thick = 1) {
    const style = (element) => getComputedStyle(element);
    const copy = chart.drawing.cloneNode(true);
    const originals = all("*", chart.drawing);
    const gone = [];
    all("*", copy).forEach((element, i) => {
      const found = style(originals[i]);
      if (found.display === "none" || found.visibility === "hidden") { gone.push(element); return; }
      if (!["path", "line", "text"].includes(element.tagName)) return;
      for (const name of STYLES) element.setAttribute(name, found.getPropertyValue(name));
      if (element.tagName === "path") element.setAttribute("stroke-width", parseFloat(found.strokeWidth) * thick);
    });
    for (const element of gone) element.remove();
    const [top, right, bottom, left] = ["top", "right", "bottom", "left"].map((side) => parseFloat(style(chart.plot).getPropertyValue(`padding-${side}`)));
    const tall = chart.drawing.clientHeight || chart.drawing.getBoundingClientRect().height;
    for (const [name, value] of Object.entries({ x: left, y: HEAD + top, width: WIDE - left - right, height: tall, overflow: "visible" })) copy.setAttribute(name, value);
    const body = style(document.body), soft = style(chart.figure.querySelector("summary")).color;
    const text = (x, y, fill, weight, ...words) =>
      make("text", { x, y, fill, "font-size": 13, "font-weight": weight, "font-family": body.fontFamily }, ...words);
    const whole = make("svg", { xmlns: SVG, width: WIDE, height: HEAD + top + tall + bottom, viewBox: `0 0 ${WIDE} ${HEAD + top + tall + bottom}` },
      make("rect", { width: "100%", height: "100%", fill: body.backgroundColor }),
      text(12, 22, body.color, 600, chart.title, make("tspan", { dx: 8, fill: soft, "font-weight": 400 },
        chart.figure.querySelector("figcaption small")?.textContent ?? "")));
    const ruler = make("canvas").getContext("2d");
    ruler.font = `13px ${body.fontFamily}`;
    let x = 12;
    all(".legend li", chart.figure).forEach((item, i) => {
      if (chart.hidden.has(i)) return;
      whole.append(make("rect", { x, y: 35, width: 10, height: 10, fill: style(item.querySelector("i")).color }),
                   text(x + 15, 44, soft, 400, item.textContent.trim()));
      x += 15 + ruler.measureText(item.textContent.trim()).width + 18;
    });
    whole.append(copy);
    return whole;
  }

  function download(blob, name) {
    const url = URL.createObjectURL(blob);
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  const quoted = (text) => /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  // A spreadsheet takes a text that begins like this for a formula.
  const tame = (text) => /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  function csv(chart) {
    const head = all("th", chart.table.tHead).map((cell) => quoted(tame(cell.textContent)));
    const rows = chart.places.map((_, i) => chart.texts(i))
      .map(([label, ...texts]) => [quoted(tame(label)), ...texts.map((text) => numberOf(text) ?? "")]);
    return new Blob([[head, ...rows].map((row) => row.join(",")).join("\n"), "\n"], { type: "text/csv" });
  }

  const vector = (chart, thick) => new Blob([new XMLSerializer().serializeToString(picture(chart, thick))], { type: "image/svg+xml" });
  async function raster(chart) {
    const url = URL.createObjectURL(vector(chart, 2));
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = make("canvas", { width: image.width * 2, height: image.height * 2 });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(url);
    canvas.toBlob((blob) => download(blob, `${chart.figure.id}.png`));
  }

  function saving(chart) {
    const add = (text, press) => pressing(text, `Save as ${text}: ${chart.title}`, press);
    chart.figure.querySelector("details").before(make("div", { class: "save" },
      add("CSV", () => download(csv(chart), `${chart.figure.id}.csv`)),
      add("SVG", () => download(vector(chart), `${chart.figure.id}.svg`)),
      add("PNG", () => raster(chart))));
  }

  for (const figure of all("figure.chart")) {
    const chart = chartOf(figure);
    for (const equip of [readable, switching, hiding, saving]) equip(chart);
  }

  dress();
})();
