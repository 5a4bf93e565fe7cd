"use strict";
// The report reads without this: a number is a link to its place in the results. With it, a click
// shows the place and the whole number first, to be copied; paper gets what is folded away.
(() => {
  const source = document.getElementById("source");
  const place = document.getElementById("source-place");
  const open = document.getElementById("source-open");
  const results = open.getAttribute("href");
  document.addEventListener("click", (event) => {
    const found = event.target.closest && event.target.closest("a.n, [data-pointer]");
    if (!found || !source.showPopover || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const title = found.querySelector("title");
    place.textContent = title ? title.textContent : found.title;
    const pointer = found.dataset.pointer;
    open.href = pointer === undefined ? found.getAttribute("href") : results + "#" + encodeURI(pointer);
    source.showPopover();
    document.getElementById("source-copy").focus();
  });
  document.getElementById("source-copy").addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(place);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    if (navigator.clipboard) navigator.clipboard.writeText(place.textContent).catch(() => {});
  });
  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details:not([open])")) {
      folded.open = true;
      folded.dataset.folded = "";
    }
  });
  addEventListener("afterprint", () => {
    for (const unfolded of document.querySelectorAll("details[data-folded]")) {
      unfolded.open = false;
      delete unfolded.dataset.folded;
    }
  });
})();
