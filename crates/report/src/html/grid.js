// The frame of the heat map: columns, areas, filters and keys. What draws the rows comes behind it.

const areas = [];
// The state of the map when the page is opened.
const LOUD = new Set([...BAD, "flaky"]);
// Kernels that the filters show, and what they ask of a field.
let view = { kernels: data.kernels.map((_, k) => k), outcome: "", attach: "" };

function buildMap() {
  const map = $("map");
  map.style.setProperty("--kernels", data.kernels.length);
  map.setAttribute("aria-rowcount", data.cells.length);
  const header = make("div", undefined, { className: "row head" });
  header.setAttribute("role", "row");
  header.append(make("div", "cell"), ...data.kernels.map((kernel, k) => make("div", kernel.id, { className: `k${k}`, title: kernel.release ?? "did not boot" })));
  [...header.children].forEach((it) => it.setAttribute("role", "columnheader"));
  const whole = make("div");
  whole.append(header);
  const byName = new Map();
  data.cells.forEach((cell, row) => {
    if (!byName.has(cell.area)) byName.set(cell.area, area(cell.area, whole));
    byName.get(cell.area).rows.push(line(row, byName.get(cell.area).body));
  });
  areas.push(...byName.values());
  // If there are failures, areas without failures are folded.
  const isBad = (it) => it.rows.some(({ row }) => data.kernels.some((_, k) => seen(k, row) && LOUD.has(STANDINGS[seen(k, row)[0]])));
  areas.forEach((it) => (it.good = !isBad(it)));
  if (areas.some((it) => !it.good)) areas.filter((it) => it.good).forEach((it) => fold(it, true));
  map.append(whole);
  built();
}

function area(name, whole) {
  const box = make("div", undefined, { className: "area" }), title = make("div", undefined, { className: "row" });
  const button = make("button", name, { type: "button" }), body = make("div", undefined, { className: "rows" });
  title.setAttribute("role", "row");
  button.setAttribute("aria-expanded", "true");
  button.addEventListener("click", () => fold(made, button.getAttribute("aria-expanded") === "true"));
  const heading = make("div");
  heading.setAttribute("role", "rowheader");
  heading.append(button);
  title.append(heading);
  box.append(title, body);
  whole.append(box);
  const made = { name, box, title, button, body, rows: [] };
  return made;
}

// Totals of an area on a kernel, which are also visible if it is folded.
function sum({ rows }, k) {
  const counts = {};
  for (const { row } of rows) {
    const it = seen(k, row);
    if (it) counts[STANDINGS[it[0]]] = (counts[STANDINGS[it[0]]] ?? 0) + 1;
  }
  const box = make("div", undefined, { className: `sum k${k}` });
  for (const standing of LOUDEST.filter((it) => counts[it]).slice(0, 3)) {
    box.append(make("b", `${SIGN[standing]} ${counts[standing]}`, { className: BAD.has(standing) ? standing : "", title: `${counts[standing]} ${standing}` }));
  }
  return box;
}

function fold(made, folded) {
  made.button.setAttribute("aria-expanded", String(!folded));
  made.body.hidden = folded;
  refolded();
}

const words = (row) => `${data.cells[row].id} ${data.cells[row].title}`.toLowerCase();

function rowBox(row) {
  const box = make("div", undefined, { className: "row" });
  box.setAttribute("role", "row");
  const name = make("div", data.cells[row].name, { className: "name", title: data.cells[row].title });
  name.setAttribute("role", "rowheader");
  box.append(name);
  return box;
}

function field(kernel, row) {
  const raw = seen(kernel, row);
  const box = make("div", undefined, { className: `field k${kernel} empty` });
  box.setAttribute("role", "gridcell");
  if (!raw) return box;
  const standing = STANDINGS[raw[0]], attach = ATTACH.filter((_, bit) => raw[1] & (1 << bit)).join("+");
  box.className = `field k${kernel} ${standing}`;
  box.textContent = `${SIGN[standing]} ${attach || standing}`;
  box.setAttribute("aria-label", `${data.kernels[kernel].id}: ${standing}${attach ? `, ${attach}` : ""}`);
  box.tabIndex = -1;
  box.dataset.at = `${kernel} ${row}`;
  return box;
}

function matches(raw, outcome, attach, requested) {
  if (!raw || (outcome && STANDINGS[raw[0]] !== outcome)) return false;
  if (!attach) return true;
  if (attach === "none") return raw[1] === 0;
  return requested === attach || (raw[1] & (1 << ATTACH.indexOf(attach))) !== 0;
}

function filter() {
  const wanted = $("f-kernel").value, only = $("f-area").value, words = $("f-text").value.toLowerCase();
  const outcome = $("f-outcome").value, attach = $("f-attach").value;
  const kernels = data.kernels.map((_, k) => k).filter((k) => !wanted || data.kernels[k].id === wanted);
  view = { kernels, outcome, attach };
  let shown = 0;
  for (const made of areas) {
    made.shown = made.rows.filter((it) => {
      const asked = (!only || made.name === only) && (!words || it.words.includes(words));
      return show(it, asked, (k) => matches(seen(k, it.row), outcome, attach, data.cells[it.row].attach));
    });
    made.box.hidden = !made.shown.length;
    shown += made.shown.length;
    // A filter also shows cells of areas that are folded because they have no failures.
    if (made.good && made.shown.length && (wanted || only || words || outcome || attach)) fold(made, false);
  }
  columns(wanted ? kernels : null);
  $("shown").textContent = `${shown} of ${data.cells.length} cells`;
  filtered();
}

// One CSS rule hides the columns of other kernels, instead of thousands of fields.
function columns(kernels) {
  const count = kernels ? kernels.length : data.kernels.length;
  $("map").style.setProperty("--kernels", Math.max(count, 1));
  const style = $("columns") ?? document.head.appendChild(make("style", "", { id: "columns" }));
  const hidden = kernels ? data.kernels.map((_, k) => k).filter((k) => !kernels.includes(k)) : [];
  style.textContent = hidden.length ? `${hidden.map((k) => `#map .k${k}`).join(",")}{display:none}` : "";
}

const STEPS = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [15, 0], PageUp: [-15, 0], Home: [0, -1e6], End: [0, 1e6] };

function mapKeys(event) {
  if (!event.target.classList.contains("field")) return;
  if (event.key === "Enter" || event.key === " ") openField(event.target);
  else if (STEPS[event.key]) step(...STEPS[event.key]);
  else return;
  event.preventDefault();
}
