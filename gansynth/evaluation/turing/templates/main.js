import { Clock } from "/clock.js";
import { Viewer } from "/viewer.js";

// An image is not answered within this time: a double click must not answer the next one.
const LEAST_MS = 300;
const AGAIN_MS = 2000;
const find = (id) => document.getElementById(id);
let state = null;
let viewer = null;
let clock = null;
let ready = false;
let drawn = 0;
const fetched = new Map();

// -- asking the server --------------------------------------------------------------------------

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  return fetch(path, { cache: "no-store", credentials: "same-origin", ...options });
}

/** Ask until somebody answers: a server that was stopped may come back. */
async function insist(path, body, what) {
  for (;;) {
    let wrong = "";
    try {
      const response = await ask(path, body);
      if (response.ok || response.status === 409) { trouble(""); return response; }
      const told = await response.json().catch(() => ({}));
      wrong = told.error ?? `The server says ${response.status}.`;
      if (response.status !== 507) { trouble(wrong); return null; }
    } catch {
      wrong = "The computer that runs this test does not answer.";
    }
    trouble(`${wrong} ${what} Trying again …`);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function trouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
}

async function bytesOf(name) {
  if (!fetched.has(name)) {
    fetched.set(name, (async () => {
      const response = await insist(`/image/${name}`, undefined, "The image is still missing.");
      return response === null ? null : new Uint8Array(await response.arrayBuffer());
    })());
  }
  return fetched.get(name);
}

// -- which page ---------------------------------------------------------------------------------

function page(name) {
  for (const one of ["join", "test", "end"]) find(one).hidden = one !== name;
}

async function follow(told) {
  state = told;
  document.body.classList.toggle("flat", told.session.size[0] === 1);
  if (told.rater === null) { join(); return; }
  if (told.image === null) { end(); return; }
  await test();
}

function join() {
  page("join");
  const { instructions, images } = state.session;
  find("count").textContent = `${images} images`;
  find("instructions").textContent = instructions;
  find("instructions").hidden = !instructions;
  find("name").focus();
}

function end() {
  page("end");
  clock?.stop();
  viewer?.clear();
  find("all").textContent = state.of;
  const found = state.results;
  find("results").hidden = found === null;
  if (found !== null) {
    const share = (value) => `${(100 * value).toFixed(1)} %`;
    const { value, low, high } = found.accuracy;
    find("accuracy").textContent = `${found.correct} of ${found.answers} were right: ${share(value)} (95 % interval ${share(low)} to ${share(high)}; chance is 50 %).`;
    find("rr").textContent = found.real_as_real;
    find("rs").textContent = found.real_as_synthetic;
    find("sr").textContent = found.synthetic_as_real;
    find("ss").textContent = found.synthetic_as_synthetic;
  }
  find("end").querySelector("h1").focus();
}

async function test() {
  const first = find("test").hidden;
  page("test");
  viewer ??= new Viewer(find("viewer"), state.session, shown);
  clock ??= new Clock(state.session.id);
  find("through").hidden = !viewer.deep;
  find("who").textContent = state.rater.name;
  find("mycode").textContent = state.rater.code;
  find("bar").max = state.of;
  find("bar").value = state.done;
  const line = `Image ${state.done + 1} of ${state.of}`;
  find("progress").textContent = line;
  if (first) {
    find("drag").querySelector(`[value="${viewer.mode}"]`).checked = true;
    find("viewer").focus();
  }
  viewer.fit();
  viewer.clear();
  const name = state.image;
  const bytes = await bytesOf(name);
  if (state.image !== name) return;
  if (bytes === null) { await resume(name); return; }
  viewer.show(bytes);
  requestAnimationFrame(() => requestAnimationFrame(() => {
    clock.start(name);
    drawn = performance.now();
    answerable(true);
  }));
  find("live").textContent = line;
  for (const old of fetched.keys()) if (old !== name && old !== state.next) fetched.delete(old);
  if (state.next !== null) bytesOf(state.next);
}

/** An image was not given: it has been answered elsewhere, in another window, say. */
async function resume(name) {
  fetched.delete(name);
  const response = await ask("/state").catch(() => null);
  const told = response?.ok ? await response.json() : null;
  if (told !== null && told.image !== name) { trouble(""); await follow(told); }
}

// -- answering ----------------------------------------------------------------------------------

function answerable(yes) {
  ready = yes;
  for (const name of ["real", "synthetic"]) find(name).setAttribute("aria-disabled", String(!yes));
}

async function answer(said) {
  if (!ready || performance.now() - drawn < LEAST_MS) return;
  answerable(false);
  const times = clock.read();
  const sent = { image: state.image, answer: said, ...times };
  const response = await insist("/answer", sent, "Your answer is not kept yet; leave this page open.");
  if (response === null) { answerable(true); return; }
  clock.stop();
  await follow(await response.json());
}

async function leave() {
  const response = await insist("/leave", {}, "");
  if (response === null) return;
  clock?.stop();
  location.reload();
}

// -- looking ------------------------------------------------------------------------------------

function shown() {
  if (viewer === null) return;
  const slider = find("slice");
  slider.max = viewer.slices - 1;
  slider.value = viewer.slice;
  const place = `${viewer.slice + 1} of ${viewer.slices}`;
  find("place").textContent = place;
  slider.setAttribute("aria-valuetext", place);
  find("plane").value = viewer.plane;
  // To the right is brighter: the level of the window falls. Contrast is the inverse of its width.
  find("level").value = Math.round(255 - viewer.level);
  find("width").value = Math.round(contrast(viewer.width));
  const line = find("progress").textContent;
  find("viewer").setAttribute("aria-label", viewer.deep ? `${line}, ${viewer.planeName} slice ${place}` : line);
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

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const sent = { name: form.get("name") };
  if (form.get("years") !== "") sent.years = Number(form.get("years"));
  if (form.get("code").trim()) sent.code = form.get("code");
  const said = find("said");
  said.textContent = "";
  try {
    const response = await ask("/join", sent);
    const told = await response.json();
    if (response.ok) { await follow(told); return; }
    said.textContent = told.error;
    if (response.status === 409) find("again").open = true;
  } catch {
    said.textContent = "The computer that runs this test does not answer. Try again.";
  }
  find("name").focus();
});
for (const said of ["real", "synthetic"]) find(said).addEventListener("click", () => answer(said));
for (const name of ["leave", "next"]) find(name).addEventListener("click", leave);
find("slice").addEventListener("input", (event) => viewer.setSlice(Number(event.target.value)));
find("level").addEventListener("input", (event) => viewer.setWindow(255 - Number(event.target.value), viewer.width));
find("width").addEventListener("input", (event) => viewer.setWindow(viewer.level, widthOf(Number(event.target.value))));
find("plane").addEventListener("change", (event) => viewer.setPlane(Number(event.target.value)));
find("drag").addEventListener("change", (event) => { viewer.mode = event.target.value; });
find("in").addEventListener("click", () => viewer.setZoom(viewer.zoom * 1.25));
find("out").addEventListener("click", () => viewer.setZoom(viewer.zoom / 1.25));
find("reset").addEventListener("click", () => viewer.reset());
document.addEventListener("keydown", key);

const begun = await insist("/state", undefined, "");
if (begun !== null) await follow(await begun.json());
