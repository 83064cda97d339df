// The heat map: areas, in them rows, in them a field per kernel. It is built once; filters hide and dim.

const areas = [];
// The state of the map when the page is opened.
const LOUD = new Set([...BAD, "flaky"]);

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
  areas.forEach(sums);
  // If there are failures, areas without failures are folded.
  const isBad = (it) => it.rows.some(({ row }) => data.kernels.some((kernel) => kernel.results[row] && LOUD.has(STANDINGS[kernel.results[row][0]])));
  areas.forEach((it) => (it.good = !isBad(it)));
  if (areas.some((it) => !it.good)) areas.filter((it) => it.good).forEach((it) => fold(it, true));
  map.append(whole);
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

// Totals of an area per kernel, which are also visible if it is folded.
function sums({ title, rows }) {
  data.kernels.forEach((_, k) => {
    const counts = {};
    for (const { row } of rows) {
      const it = data.kernels[k].results[row];
      if (it) counts[STANDINGS[it[0]]] = (counts[STANDINGS[it[0]]] ?? 0) + 1;
    }
    const box = make("div", undefined, { className: `sum k${k}` });
    for (const standing of LOUDEST.filter((it) => counts[it]).slice(0, 3)) {
      box.append(make("b", `${SIGN[standing]} ${counts[standing]}`, { className: BAD.has(standing) ? standing : "", title: `${counts[standing]} ${standing}` }));
    }
    title.append(box);
  });
}

function fold(made, folded) {
  made.button.setAttribute("aria-expanded", String(!folded));
  made.body.hidden = folded;
}

function line(row, body) {
  const cell = data.cells[row];
  const box = make("div", undefined, { className: "row" });
  box.setAttribute("role", "row");
  const name = make("div", cell.name, { className: "name", title: cell.title });
  name.setAttribute("role", "rowheader");
  box.append(name);
  data.kernels.forEach((_, k) => box.append(field(k, row)));
  body.append(box);
  return { row, box, words: `${cell.id} ${cell.title}`.toLowerCase() };
}

function field(kernel, row) {
  const raw = data.kernels[kernel].results[row];
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
  let shown = 0;
  for (const made of areas) {
    let some = false;
    for (const { row, box, words: own } of made.rows) {
      let hit = false;
      if ((!only || made.name === only) && (!words || own.includes(words))) {
        for (const k of kernels) {
          const good = matches(data.kernels[k].results[row], outcome, attach, data.cells[row].attach);
          hit ||= good;
          box.children[k + 1].classList.toggle("off", !good);
        }
      }
      if (box.hidden === hit) box.hidden = !hit;
      some ||= hit;
      shown += hit ? 1 : 0;
    }
    made.box.hidden = !some;
    // A filter also shows cells of areas that are folded because they have no failures.
    if (made.good && some && (wanted || only || words || outcome || attach)) fold(made, false);
  }
  columns(wanted ? kernels : null);
  $("shown").textContent = `${shown} of ${data.cells.length} cells`;
  rove(visible()[0]);
}

// One CSS rule hides the columns of other kernels, instead of thousands of fields.
function columns(kernels) {
  const count = kernels ? kernels.length : data.kernels.length;
  $("map").style.setProperty("--kernels", Math.max(count, 1));
  const style = $("columns") ?? document.head.appendChild(make("style", "", { id: "columns" }));
  const hidden = kernels ? data.kernels.map((_, k) => k).filter((k) => !kernels.includes(k)) : [];
  style.textContent = hidden.length ? `${hidden.map((k) => `#map .k${k}`).join(",")}{display:none}` : "";
}

// Only one field of the map can be reached by the tab key; arrow keys select another one.
let current = null;

function visible() {
  const shown = [];
  for (const made of areas) {
    if (made.box.hidden || made.body.hidden) continue;
    for (const { box } of made.rows) if (!box.hidden) shown.push(box);
  }
  return shown;
}

function rove(to, focus = false) {
  const target = to?.classList.contains("row") ? fieldsOf(to)[0] : to;
  if (!target) return;
  if (current) current.tabIndex = -1;
  current = target;
  current.tabIndex = 0;
  if (focus) {
    current.focus({ preventScroll: true });
    current.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

const fieldsOf = (box) => [...box.children].filter((it) => it.dataset.at !== undefined && it.offsetParent !== null);

function step(rows, columns) {
  const shown = visible(), at = shown.indexOf(current.parentElement);
  if (rows) {
    const target = shown[Math.min(Math.max(at + rows, 0), shown.length - 1)];
    const same = target?.children[[...current.parentElement.children].indexOf(current)];
    rove(same?.dataset.at !== undefined ? same : target, true);
    return;
  }
  const fields = fieldsOf(current.parentElement);
  rove(fields[Math.min(Math.max(fields.indexOf(current) + columns, 0), fields.length - 1)], true);
}

const STEPS = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], PageDown: [15, 0], PageUp: [-15, 0], Home: [0, -1e6], End: [0, 1e6] };

function mapKeys(event) {
  if (!event.target.classList.contains("field") || !current) return;
  if (event.key === "Enter" || event.key === " ") openField(event.target);
  else if (STEPS[event.key]) step(...STEPS[event.key]);
  else return;
  event.preventDefault();
}

function openField(box) {
  if (box?.dataset.at === undefined) return;
  rove(box);
  open(...box.dataset.at.split(" ").map(Number));
}
