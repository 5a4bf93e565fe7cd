"use strict";
// Maps read without this: each point says its name. With it, the point nearest to the pointer, a
// tap or the keyboard shows its picture, which stands once in the page, below the maps.
(() => {
  const REACH = 28; // pixels from which a point is meant
  const STEPS = { ArrowRight: ["x", 1], ArrowLeft: ["x", -1], ArrowDown: ["y", 1], ArrowUp: ["y", -1] };
  const results = document.getElementById("source-open").getAttribute("href");

  for (const map of document.querySelectorAll(".map")) {
    const plot = map.querySelector(".plot");
    const card = map.querySelector(".card");
    const ring = map.querySelector(".ring");
    const image = document.createElement("img");
    image.alt = "";
    const points = [...map.querySelectorAll(".point")].map((element) => {
      const use = element.querySelector("use");
      const title = element.querySelector("title");
      const name = title.textContent;
      title.remove(); // else browsers show it above the picture
      element.setAttribute("aria-label", name);
      return { element, name, x: parseFloat(use.getAttribute("x")), y: parseFloat(use.getAttribute("y")) };
    });
    let current = null;
    let pinned = false;

    const seen = () => points.filter((point) => getComputedStyle(point.element).display !== "none");

    function hide() {
      if (current) current.element.setAttribute("aria-selected", "false");
      current = null;
      pinned = false;
      card.hidden = true;
      ring.classList.remove("on");
    }

    function show(point, pin) {
      if (current) current.element.setAttribute("aria-selected", "false");
      current = point;
      pinned = pin;
      point.element.setAttribute("aria-selected", "true");
      ring.setAttribute("cx", point.x + "%");
      ring.setAttribute("cy", point.y + "%");
      ring.classList.add("on");
      const found = document.getElementById(point.element.dataset.picture || "");
      image.remove();
      if (found) {
        image.src = found.querySelector("img").src;
        card.prepend(image);
      }
      card.querySelector(".who").textContent = point.name;
      const place = card.querySelector(".place");
      place.textContent = point.element.dataset.place;
      place.href = results + "#" + encodeURI(point.element.dataset.place);
      card.classList.toggle("pinned", pin);
      card.hidden = false;
      lay(point);
    }

    // Beside the point where there is room, never beyond the plot.
    function lay(point) {
      const [wide, high] = [plot.clientWidth, plot.clientHeight];
      const [x, y] = [(point.x / 100) * wide, (point.y / 100) * high];
      const right = x + 16 + card.offsetWidth <= wide || x < wide / 2;
      const left = right ? x + 16 : x - 16 - card.offsetWidth;
      card.style.left = Math.max(0, Math.min(left, wide - card.offsetWidth)) + "px";
      card.style.top = Math.max(0, Math.min(y - card.offsetHeight / 2, high - card.offsetHeight)) + "px";
    }

    function nearest(event) {
      const box = plot.getBoundingClientRect();
      const far = (point) => Math.hypot(
        box.left + (point.x / 100) * box.width - event.clientX,
        box.top + (point.y / 100) * box.height - event.clientY,
      );
      let best = null;
      for (const point of seen()) if (!best || far(point) < far(best)) best = point;
      return best && far(best) <= REACH ? best : null;
    }

    function enter(point) {
      for (const other of points) other.element.tabIndex = other === point ? 0 : -1;
    }

    plot.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse" || card.contains(event.target) || pinned) return;
      const point = nearest(event);
      if (point && point !== current) show(point, false);
      if (!point && current) hide();
    });
    plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && current && !pinned) hide();
    });
    plot.addEventListener("click", (event) => {
      if (card.contains(event.target)) return;
      const point = nearest(event);
      if (!point) return hide();
      enter(point);
      point.element.focus({ preventScroll: true });
      show(point, true);
    });
    plot.addEventListener("focusin", (event) => {
      const point = points.find((one) => one.element === event.target);
      if (point) show(point, true);
    });
    plot.addEventListener("focusout", (event) => {
      if (!plot.contains(event.relatedTarget)) hide();
    });
    map.addEventListener("change", () => {
      const left = seen();
      if (current && !left.includes(current)) hide();
      if (left.length && !left.some((point) => point.element.tabIndex === 0)) enter(left[0]);
    });
    plot.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      const left = seen();
      let next = null;
      if (STEPS[event.key]) {
        const [axis, way] = STEPS[event.key];
        const order = left.sort((one, other) => one[axis] - other[axis]);
        const here = order.findIndex((one) => one.element === document.activeElement);
        next = order[(here + way + order.length) % order.length];
      } else if (event.key === "Home" || event.key === "End") {
        next = left[event.key === "Home" ? 0 : left.length - 1];
      }
      if (!next) return;
      event.preventDefault();
      enter(next);
      next.element.focus({ preventScroll: true });
    });
  }
})();
