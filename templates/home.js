"use strict";
// Asks for the pools of all workers every 2 s while somebody looks at the page, and draws the last two minutes.
(() => {
  const EVERY_MS = 2000, SHOWN_MS = 120_000, QUANTILE_MS = 30_000, HEIGHT = 180, LEFT = 34, TOP = 16, BOTTOM = 22;
  const byId = (id) => document.getElementById(id);
  const bar = byId("bar"), curves = byId("curves"), state = byId("state");
  const seen = [];
  let timer = null, asking = false, failed = 0;

  const figure = (value) => value.toLocaleString("en");
  const ms = (value) => value === null ? "–" : `${Number(value.toPrecision(3)).toLocaleString("en")} ms`;
  const show = (name, text) => document.querySelectorAll(`[data-figure="${name}"]`).forEach((each) => { each.textContent = text; });

  // The 99th percentile of the waits between two answers, on a straight line within its bucket; null without any.
  function p99(before, now) {
    const buckets = Object.entries(now).map(([bound, count]) => [Number(bound.replace("+Inf", "Infinity")), count - (before[bound] ?? 0)]);
    buckets.sort(([one], [other]) => one - other);
    const all = buckets.at(-1)?.[1] ?? 0;
    if (all <= 0) return null;
    let low = 0, below = 0;
    for (const [bound, count] of buckets) {
      if (count >= .99 * all) return bound === Infinity ? low : low + (bound - low) * (.99 * all - below) / (count - below || 1);
      [low, below] = [bound, count];
    }
    return low;
  }

  function element(name, attributes, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(text);
    return made;
  }

  function draw() {
    const { at: now, pools } = seen.at(-1);
    const width = curves.clientWidth, right = width - 1, base = HEIGHT - BOTTOM;
    // On paper, which may be narrower than the screen, the drawing is made smaller.
    curves.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const most = Math.max(pools.size, ...seen.map((each) => Math.max(each.pools.in_use + each.pools.idle, each.pools.waiting)), 4);
    const x = (at) => right - (right - LEFT) * (now - at) / SHOWN_MS;
    const y = (value) => base - (base - TOP) * value / most;
    const line = (read) => seen.map((each) => `${x(each.at).toFixed(1)},${y(read(each.pools)).toFixed(1)}`).join("L");
    const area = (read) => `M${x(seen[0].at).toFixed(1)},${base}L${line(read)}L${right},${base}Z`;
    const middle = Math.round(most / 2);
    curves.replaceChildren(
      ...[0, middle, most].flatMap((value) => [
        element("line", { x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
        element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, figure(value)),
      ]),
      element("path", { class: "idle", d: area((pools) => pools.in_use + pools.idle) }),
      element("path", { class: "in-use", d: area((pools) => pools.in_use) }),
      element("path", { class: "waiting", d: `M${line((pools) => pools.waiting)}` }),
      ...(pools.size ? [element("line", { class: "size", x1: LEFT, x2: right, y1: y(pools.size), y2: y(pools.size) }),
                        element("text", { x: right, y: y(pools.size) - 4, "text-anchor": "end" }, `all pools: ${figure(pools.size)}`)] : []),
      ...[["2 min ago", LEFT, "start"], ["1 min", (LEFT + right) / 2, "middle"], ["now", right, "end"]].map(([text, at, anchor]) =>
        element("text", { x: at, y: HEIGHT - 6, "text-anchor": anchor }, text)));
    curves.setAttribute("aria-label", `The last two minutes: at most ${figure(Math.max(...seen.map((each) => each.pools.in_use)))} connections `
      + `in use and ${figure(Math.max(...seen.map((each) => each.pools.waiting)))} requests waiting`);
  }

  function update(pools) {
    const at = performance.now();
    seen.push({ at, pools });
    while (seen[0].at < at - SHOWN_MS) seen.shift();
    for (const name of ["in_use", "idle", "waiting", "size"]) show(name, figure(pools[name]));
    show("workers", `${figure(pools.workers)} worker${pools.workers === 1 ? "" : "s"}`);
    const before = seen.find((each) => each.at >= at - QUANTILE_MS - EVERY_MS / 2);
    if (before.at < at) {
      show("span", "in the last 30 s");
      show("p99", ms(p99(before.pools.waits, pools.waits)));
    }
    const total = Math.max(pools.size, pools.in_use + pools.idle, 1), used = 1000 * pools.in_use / total;
    bar.querySelector(".in-use").setAttribute("width", used);
    bar.querySelector(".idle").setAttribute("x", used);
    bar.querySelector(".idle").setAttribute("width", 1000 * pools.idle / total);
    bar.setAttribute("aria-label", `${figure(pools.in_use)} connections in use, ${figure(pools.idle)} idle`);
    curves.removeAttribute("hidden");
    draw();
  }

  const say = (text) => { if (state.textContent !== text) state.textContent = text; };

  async function ask() {
    timer = null;
    if (asking) return;
    asking = true;
    try {
      const answer = await fetch("/pool", { cache: "no-store", signal: AbortSignal.timeout(10_000) });
      if (answer.status === 403) { say("The figures are not shown here: /pool is not public."); failed = Infinity; return; }
      if (!answer.ok) throw new Error(answer.statusText);
      update((await answer.json()).all_workers);
      failed = 0;
      say("Drawn anew every 2 s while this page is in view.");
    } catch {
      failed += 1;
      say("The service does not answer; trying again …");
    } finally {
      asking = false;
      plan(Math.min(EVERY_MS * 2 ** failed, 30_000));
    }
  }

  function plan(in_ms) {
    clearTimeout(timer);
    timer = document.hidden || failed === Infinity ? null : setTimeout(ask, in_ms);
  }

  document.addEventListener("visibilitychange", () => plan(0));
  addEventListener("resize", () => { if (seen.length) draw(); });
  plan(0);
})();
