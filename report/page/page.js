"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (selector, within = document) => within.querySelector(selector);
const element = (tag, text, names = {}) => Object.assign(document.createElement(tag), { textContent: text ?? "", ...names });

// Light or dark: the reader's system decides, the button overrules it.
const button = one("#theme"), order = ["light dark", "light", "dark"];
const themed = (scheme) => {
  document.documentElement.style.colorScheme = scheme;
  button.textContent = { "light dark": "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[scheme];
};
let scheme = order[0];
try { scheme = localStorage.getItem("scheme") ?? scheme; } catch { /* a browser may refuse to store anything for files */ }
themed(scheme);
button.addEventListener("click", () => {
  themed(scheme = order[(order.indexOf(scheme) + 1) % 3]);
  try { localStorage.setItem("scheme", scheme); } catch { /* as above */ }
});

// Tables: a click on a heading sorts; what is no number comes last.
const figure = (row, column) => {
  const text = row.cells[column].textContent.trim(), number = parseFloat(text.replaceAll(",", ""));
  return Number.isNaN(number) ? text.toLowerCase() : number;
};
const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
for (const table of all("table.sortable")) {
  all("thead th", table).forEach((head, column) => {
    const click = element("button", "", { type: "button" });
    click.append(...head.childNodes);
    head.append(click);
    click.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const keyed = [...table.tBodies[0].rows].map((row) => [figure(row, column), row]);
      keyed.sort(([a], [b]) => falling && typeof a === typeof b ? compare(b, a) : compare(a, b));
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
}

// Plots. Colours are the page's own, so that they follow the theme and print in its light one.
const text = { labelColor: "var(--muted, #555)", titleColor: "var(--text, #222)", labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500 };
const config = {
  background: "transparent", font: "system-ui, sans-serif", view: { stroke: null }, text: { color: "var(--text, #222)" },
  axis: { ...text, gridColor: "var(--line, #ddd)", domainColor: "var(--line, #ddd)", tickColor: "var(--line, #ddd)", labelOverlap: true, labelFlush: false },
  legend: { ...text, labelColor: "var(--text, #222)", labelLimit: 180 },
};
const anchors = ["right", "left", "top-right", "bottom-right", "top-left", "bottom-left", "top", "bottom"];
// Labels go where they hide no point; Vega-Lite has no way to ask Vega for that.
const labelled = (spec) => {
  const place = (marks) => marks.forEach((mark) => {
    if (mark.marks) place(mark.marks);
    if (mark.name !== "labels_marks") return;
    mark.from = { data: "points_marks" };
    mark.encode = { update: { text: { field: "datum.label" }, fill: { value: "var(--text, #222)" }, fontSize: { value: 12 }, fontWeight: { value: 600 } } };
    mark.transform = [{ type: "label", size: { signal: "[width, height]" }, avoidMarks: ["ends_marks"], offset: [...Array(8).fill(4), 18], anchor: [...anchors, ...anchors] }];
  });
  place(spec.marks);
  return spec;
};
// Columns of a legend: a name takes up to some 170 pixels.
const columns = (wide) => Math.max(2, Math.floor(wide / 170));
const fluid = new Map();
const draw = async (place, spec) => {
  const params = [...(spec.params ?? []), { name: "columns", value: columns(place.clientWidth) }];
  const { view } = await vegaEmbed(place, { ...spec, params }, { actions: false, renderer: "svg", config, patch: labelled });
  if (spec.width === "container") fluid.set(place, view);
  return view;
};
addEventListener("resize", () => fluid.forEach((view, place) => view.signal("columns", columns(place.clientWidth)).run()));

// The first screen's plot: which scenario, against which cost.
const chosen = (name) => one(`[name=${name}]:checked`)?.value;
const drawCost = () => {
  const number = one("#scenario")?.value ?? "1", cost = chosen("cost"), spec = structuredClone(data.plots[`cost-${number}`]);
  const rows = spec.layer.at(-1).data.values.map((row) => row[cost]).filter((found) => found != null);
  const wide = Math.min(...rows) > 0 && Math.max(...rows) > 20 * Math.min(...rows);
  // Room for a name beside the outermost points.
  const x = { field: cost, type: "quantitative", title: data.costs[cost], scale: { padding: Math.min(90, one("#cost").clientWidth / 7), ...(wide ? { type: "log" } : { zero: false }) }, axis: { format: ",~r" } };
  // Points that all but coincide share one label, so that each is named.
  const points = spec.layer.find((layer) => layer.name === "points").data.values.filter((row) => row[cost] != null);
  const at = (row) => [wide ? Math.log(row[cost]) : row[cost], row.value], spans = [0, 1].map((axis) => {
    const along = points.map((row) => at(row)[axis]);
    return (Math.max(...along) - Math.min(...along)) || 1;
  });
  const heads = [];
  for (const row of points) {
    const near = heads.find((head) => [0, 1].every((axis) => Math.abs(at(head)[axis] - at(row)[axis]) <= 0.04 * spans[axis]));
    row.label = near ? "" : row.technique;
    if (near) near.label += `, ${row.technique}`; else heads.push(row);
  }
  for (const layer of spec.layer) if (layer.encoding.x && !("value" in layer.encoding.x)) layer.encoding.x = x;
  all("[data-card]").forEach((card) => card.toggleAttribute("data-off", card.dataset.card !== number));
  return draw(one("#cost"), spec);
};
all("[name=cost], #scenario").forEach((input) => input.addEventListener("change", drawCost));

// Answers: search and filter all rows, show some of them.
const ROWS = 25;
const explore = async (box, number) => {
  const found = data.answers[number], shown = found.untuned.texts !== null, technique = one(".technique", box), kind = one(".kind", box);
  const body = one("tbody", box), state = one("[role=status]", box), [back, next] = all(".pager button", box), every = one(".every", box), search = one("[type=search]", box);
  const texts = found.asked.map((asked, n) => `${found.ids[n]} ${asked} ${found.expected[n]}`.toLowerCase());
  const sign = found.higher ? 1 : -1, percent = all("option", kind).map((option) => option.textContent);
  let page = 0, hits = [], matrix = null, cell = null;
  const change = (n) => sign * Math.sign(found.tuned[technique.value].scores[n] - found.untuned.scores[n]);
  const kinds = { all: () => true, fixed: (n) => change(n) > 0, broken: (n) => change(n) < 0, same: (n) => change(n) === 0 };
  const score = (value) => found.binary ? (value ? " ✓" : " ✗") : ` (${value})`;
  const render = () => {
    const { texts: own, scores } = found.tuned[technique.value], start = page * ROWS;
    body.replaceChildren(...hits.slice(start, start + ROWS).map((n) => {
      const row = element("tr"), names = all("thead th", box).map((head) => head.textContent);
      const better = change(n), word = better > 0 ? "fixed" : better < 0 ? "broken" : !found.binary ? "same" : scores[n] ? "both right" : "both wrong";
      const cells = shown ? [found.asked[n], found.expected[n], found.untuned.texts[n] + score(found.untuned.scores[n]), own[n] + score(scores[n])]
        : [found.asked[n], found.untuned.scores[n], scores[n]];
      row.append(...[...cells, word].map((text, column) => element("td", text, { className: column === cells.length ? `score ${{ fixed: "good", broken: "bad" }[word] ?? "muted"}` : "" })));
      [...row.cells].forEach((td, column) => { td.dataset.name = names[column]; });
      return row;
    }));
    state.textContent = hits.length ? `${start + 1} to ${Math.min(start + ROWS, hits.length)} of ${hits.length.toLocaleString("en")} rows` : "no such row";
    back.disabled = page === 0;
    next.disabled = start + ROWS >= hits.length;
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), own = found.tuned[technique.value].texts;
    const inCell = (n) => !cell || (found.expected[n] === cell.expected && own[n] === cell.answered);
    const matching = found.ids.map((_, n) => n).filter((n) => inCell(n) && words.every((word) => texts[n].includes(word) || own?.[n].toLowerCase().includes(word) || found.untuned.texts?.[n].toLowerCase().includes(word)));
    all("option", kind).forEach((option, n) => { option.textContent = `${cell && n === 0 ? "this cell" : percent[n]} (${matching.filter(kinds[option.value]).length.toLocaleString("en")})`; });
    hits = matching.filter(kinds[kind.value]);
    page = 0;
    every.hidden = !cell;
    render();
  };
  const count = () => {
    const own = found.tuned[technique.value].texts, total = {}, cells = {};
    found.expected.forEach((expected, n) => {
      total[expected] = (total[expected] ?? 0) + 1;
      const key = JSON.stringify([expected, own[n]]);
      cells[key] = (cells[key] ?? 0) + 1;
    });
    matrix.change("cells", vega.changeset().remove(() => true).insert(Object.entries(cells).map(([key, rows]) => {
      const [expected, answered] = JSON.parse(key);
      return { expected, answered, rows, chosen: cell?.expected === expected && cell.answered === answered, share: rows / total[expected], side: expected === answered ? "right" : "wrong" };
    }))).run();
  };
  found.binary = Object.values(found.tuned).concat(found.untuned).every((model) => model.scores.every((value) => value === 0 || value === 1));
  const choose = (other) => { cell = other; filter(); if (matrix) count(); };
  technique.addEventListener("change", () => choose(null));
  every.addEventListener("click", () => choose(null));
  kind.addEventListener("change", filter);
  search.addEventListener("input", () => { if (cell) choose(null); else filter(); });
  back.addEventListener("click", () => { page -= 1; render(); });
  next.addEventListener("click", () => { page += 1; render(); });
  filter();
  const place = one(".confusion", box);
  if (place && data.plots[`confusion-${number}`]) {
    matrix = await draw(place, data.plots[`confusion-${number}`]);
    count();
    matrix.addEventListener("click", (_, item) => { const other = item?.datum; choose(other?.expected && !other.chosen ? other : null); });
  }
};

// What is seen first is drawn first; the rest follows at once, so that a print has every plot.
(async () => {
  if (one("#cost")) await drawCost();
  for (const place of all("[data-plot]")) await draw(place, data.plots[place.dataset.plot]);
  for (const box of all("[data-answers]")) await explore(box, box.dataset.answers);
  document.documentElement.dataset.ready = "";
})();
const closed = [];
addEventListener("beforeprint", () => {
  all("details:not([open], .long)").forEach((part) => { closed.push(part); part.open = true; });
  // As wide as a sheet, so that a print shows their texts in the size of others.
  fluid.forEach((view) => view.signal("columns", columns(640)).width(640).run());
});
addEventListener("afterprint", () => {
  closed.splice(0).forEach((part) => { part.open = false; });
  dispatchEvent(new Event("resize"));
});
