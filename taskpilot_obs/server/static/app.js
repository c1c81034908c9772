// Times in the reader's zone, values on hover and by arrow keys, and a fresh page every 30 seconds while it is seen.
"use strict";
(() => {
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const short = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });

  function localise(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      if (!time.title) time.title = time.textContent + " UTC";
      time.textContent = (time.closest(".x") ? short : local).format(at);
    }
  }

  function read(rect) {
    const said = rect.querySelector("title")?.textContent ?? "";
    const at = rect.dataset.at && new Date(rect.dataset.at);
    return at ? short.format(at) + " · " + said : said;
  }

  function enliven(root) {
    for (const figure of root.querySelectorAll("figure.chart")) {
      const svg = figure.querySelector("svg");
      const bars = [...svg.querySelectorAll("rect")];
      if (!bars.length) continue;
      const readout = document.createElement("p");
      readout.className = "readout";
      readout.setAttribute("aria-live", "polite");
      figure.append(readout);
      svg.setAttribute("tabindex", "0");
      svg.id = svg.id || "svg-" + (figure.parentElement.querySelector("details")?.id ?? "");
      let place = -1;
      const show = (next) => {
        bars[place]?.classList.remove("on");
        place = next;
        bars[place]?.classList.add("on");
        readout.textContent = place < 0 ? "" : read(bars[place]);
      };
      svg.addEventListener("pointerover", (event) => show(bars.indexOf(event.target.closest("rect"))));
      svg.addEventListener("pointerleave", () => show(-1));
      svg.addEventListener("blur", () => show(-1));
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const end = { Home: 0, End: bars.length - 1 }[event.key];
        if (step === undefined && end === undefined) return;
        event.preventDefault();
        show(end ?? Math.min(bars.length - 1, Math.max(0, place + step)));
      });
    }
  }

  function path(element) {
    // Where an element stands in the content, so that its successor gets the focus.
    if (!element || !element.closest("#content")) return null;
    if (element.id) return "#" + CSS.escape(element.id);
    const parts = [];
    for (let at = element; at.id !== "content"; at = at.parentElement) {
      parts.unshift(at.tagName + ":nth-child(" + (1 + [...at.parentElement.children].indexOf(at)) + ")");
    }
    return "#content > " + parts.join(" > ");
  }

  function replace(fresh) {
    const content = document.getElementById("content");
    const focus = path(document.activeElement);
    const open = [...content.querySelectorAll("details[open]")].map((details) => details.id);
    const scrolled = [...content.querySelectorAll(".scroll")].map((box) => [box.id, box.scrollLeft]);
    const [x, y] = [window.scrollX, window.scrollY];
    content.replaceChildren(...fresh.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, left] of scrolled) {
      const box = document.getElementById(id);
      if (box) box.scrollLeft = left;
    }
    localise(content);
    enliven(content);
    window.scrollTo(x, y);
    if (focus) document.querySelector(focus)?.focus({ preventScroll: true });
  }

  async function refresh() {
    const note = document.getElementById("refreshing");
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const readAt = fresh.getElementById("read-at");
      replace(fresh.getElementById("content"));
      document.getElementById("read-at").replaceWith(readAt);
      localise(readAt.parentElement);
      note.textContent = ", again every 30 seconds";
    } catch {
      note.textContent = "; the server cannot be reached now";
    }
  }

  // A period takes the place of two dates, which win where both are sent.
  document.querySelector("form.filters")?.addEventListener("change", (event) => {
    if (event.target.name !== "period" || !event.target.value) return;
    for (const name of ["start", "end"]) event.currentTarget.elements.namedItem(name).value = "";
  });
  localise(document);
  enliven(document);
  const every = Number(document.body.dataset.refresh) * 1000;
  if (every) {
    let last = Date.now();
    const due = () => {
      if (document.visibilityState !== "visible" || Date.now() - last < every - 50) return;
      last = Date.now();
      refresh();
    };
    setInterval(due, every);
    document.addEventListener("visibilitychange", due);
    document.addEventListener("taskpilot:refresh", refresh);
    document.getElementById("refreshing").textContent = ", again every 30 seconds";
  }
})();
