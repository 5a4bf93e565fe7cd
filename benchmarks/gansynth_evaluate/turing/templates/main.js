// An image is not answered within this time: a double click must not answer the next one.
const LEAST_MS = 300;
const NAME = /^[\p{L}\p{N}][\p{L}\p{N} .,'’()-]{0,39}$/u;
const find = (id) => document.getElementById(id);
const about = JSON.parse(find("about").textContent);
const images = [...document.querySelectorAll("script.image")];
const place = `gansynth-${about.study}-${about.rater}`;
let viewer = null;
let ready = false;
let drawn = 0;
let mine = null; // name, years and answers of who rates here

// -- what this browser keeps --------------------------------------------------------------------

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    // Another window may have gone on. A browser that keeps nothing has what this page remembers.
    if (kept !== null && kept.answers.length >= (mine?.answers.length ?? 0)) mine = kept;
  } catch { /* no storage, or not ours: what is in memory stays */ }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(mine));
    trouble("");
  } catch {
    trouble("This browser does not keep your answers. Leave this page open, and save them as a file.");
  }
}

function save() {
  const { name, years, answers } = mine;
  const file = { format: "gansynth turing-test answers 2", study: about.study, rater: about.rater, name, years, answers };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
  link.download = `answers-${about.study}-rater-${about.rater}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  find("saved").textContent = `Saved as ${link.download}, where this browser puts downloads.`;
  find("forgetting").hidden = false;
}

function forget() {
  try { localStorage.removeItem(place); } catch { /* no storage: nothing to forget */ }
  find("saved").textContent = "This browser has no more of your answers.";
  find("forgetting").hidden = true;
}

function trouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
}

// -- which page ---------------------------------------------------------------------------------

function page(name) {
  for (const one of ["join", "test", "end"]) find(one).hidden = one !== name;
}

function follow() {
  recall();
  if (mine === null) {
    page("join");
    find("name").focus();
  } else if (mine.answers.length < about.codes.length) test();
  else end();
}

function end() {
  page("end");
  viewer?.clear();
  find("end").querySelector("h1").focus();
}

function test() {
  const first = find("test").hidden;
  page("test");
  viewer ??= new Viewer(find("viewer"), about, shown);
  find("through").hidden = !viewer.deep;
  find("who").textContent = `${about.rater}: ${mine.name}`;
  const done = mine.answers.length;
  find("bar").value = done;
  const line = `Image ${done + 1} of ${about.codes.length}`;
  find("progress").textContent = line;
  if (first) {
    find("drag").querySelector(`[value="${viewer.mode}"]`).checked = true;
    find("viewer").focus();
  }
  viewer.fit();
  viewer.show(bytesOf(images[done].textContent));
  requestAnimationFrame(() => requestAnimationFrame(() => {
    drawn = performance.now();
    answerable(true);
  }));
  find("live").textContent = line;
}

function bytesOf(text) {
  const plain = atob(text);
  const bytes = new Uint8Array(plain.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = plain.charCodeAt(i);
  return bytes;
}

// -- answering ----------------------------------------------------------------------------------

function answerable(yes) {
  ready = yes;
  for (const name of ["real", "synthetic"]) find(name).setAttribute("aria-disabled", String(!yes));
}

function answer(said) {
  if (!ready || performance.now() - drawn < LEAST_MS) return;
  answerable(false);
  const image = about.codes[mine.answers.length];
  recall();
  if (about.codes[mine.answers.length] === image) { // else it was answered in another window
    mine.answers.push({ image, answer: said });
    keep();
  }
  follow();
}

function begin(event) {
  event.preventDefault();
  const form = new FormData(event.target);
  const name = form.get("name").normalize("NFC").trim().replace(/\s+/g, " ");
  const years = form.get("years") === "" ? null : Number(form.get("years"));
  let wrong = "";
  if (!NAME.test(name)) wrong = "A name or code has 1 to 40 letters, digits, blanks or . , ' ( ) - and begins with a letter or digit.";
  else if (find("years").validity.badInput || !(years === null || (years >= 0 && years <= 80))) wrong = "Years of experience is a number from 0 to 80.";
  find("said").textContent = wrong;
  if (wrong) {
    find(NAME.test(name) ? "years" : "name").focus();
    return;
  }
  mine = { name, years, answers: [] };
  keep();
  follow();
}

// -- looking ------------------------------------------------------------------------------------

function shown() {
  if (viewer === null) return;
  const slider = find("slice");
  slider.max = viewer.slices - 1;
  slider.value = viewer.slice;
  const where = `${viewer.slice + 1} of ${viewer.slices}`;
  find("place").textContent = where;
  slider.setAttribute("aria-valuetext", where);
  find("plane").value = viewer.plane;
  // To the right is brighter: the level of the window falls. Contrast is the inverse of its width.
  find("level").value = Math.round(255 - viewer.level);
  find("width").value = Math.round(contrast(viewer.width));
  const line = find("progress").textContent;
  find("viewer").setAttribute("aria-label", viewer.deep ? `${line}, ${viewer.planeName} slice ${where}` : line);
}

// In the middle the window is as wide as all grey values; a quarter of the way doubles or halves it.
const contrast = (width) => Math.min(255, Math.max(0, 127.5 - 64 * Math.log2(width / 255)));
const widthOf = (value) => 255 * 2 ** ((127.5 - value) / 64);

function key(event) {
  if (find("test").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target;
  if (target.matches("select, input[type=text]")) return;
  const done = letters(event) || arrows(event, target);
  if (done) event.preventDefault();
}

function letters(event) {
  if (!find("shortcuts").checked) return false;
  switch (event.key) {
    case "r": case "R": if (!event.repeat) answer("real"); return true;
    case "s": case "S": if (!event.repeat) answer("synthetic"); return true;
    case "+": case "=": viewer.setZoom(viewer.zoom * 1.25); return true;
    case "-": case "−": viewer.setZoom(viewer.zoom / 1.25); return true;
    case "0": viewer.reset(); return true;
    default: return false;
  }
}

// Only where they have no other meaning: in a slider they move it, elsewhere they scroll the page.
function arrows(event, target) {
  if (target !== document.body && !target.closest("#viewer, #answers")) return false;
  const step = event.shiftKey ? 0 : 1;
  const by = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -viewer.slices, End: viewer.slices }[event.key];
  if (by !== undefined) {
    if (!viewer.deep || !step) return false;
    viewer.setSlice(viewer.slice + by);
    return true;
  }
  const side = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
  if (side === undefined) return false;
  if (step) viewer.setWindow(viewer.level + 8 * side, viewer.width);
  else viewer.setWindow(viewer.level, viewer.width * 1.1 ** side);
  return true;
}

// -- wires --------------------------------------------------------------------------------------

find("form").addEventListener("submit", begin);
for (const said of ["real", "synthetic"]) find(said).addEventListener("click", () => answer(said));
for (const button of document.querySelectorAll(".save")) button.addEventListener("click", save);
find("forget").addEventListener("click", forget);
find("slice").addEventListener("input", (event) => viewer.setSlice(Number(event.target.value)));
find("level").addEventListener("input", (event) => viewer.setWindow(255 - Number(event.target.value), viewer.width));
find("width").addEventListener("input", (event) => viewer.setWindow(viewer.level, widthOf(Number(event.target.value))));
find("plane").addEventListener("change", (event) => viewer.setPlane(Number(event.target.value)));
find("drag").addEventListener("change", (event) => { viewer.mode = event.target.value; });
find("in").addEventListener("click", () => viewer.setZoom(viewer.zoom * 1.25));
find("out").addEventListener("click", () => viewer.setZoom(viewer.zoom / 1.25));
find("reset").addEventListener("click", () => viewer.reset());
document.addEventListener("keydown", key);
document.body.classList.toggle("flat", about.size[0] === 1);
find("loading").hidden = true;
follow();
