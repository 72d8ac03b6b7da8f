"use strict";
// The page works without this: it adds dropping a photo, and figures that follow by themselves.

for (const place of document.querySelectorAll("[data-drop]")) {
  const input = place.querySelector("input[type=file]");
  const hint = document.createElement("p");
  hint.className = "quiet";
  hint.textContent = "Or drop one anywhere on this page.";
  place.append(hint);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  addEventListener("dragleave", () => place.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    if (event.dataTransfer.files.length === 1) {
      input.files = event.dataTransfer.files;
      input.form.requestSubmit();
    } else {
      hint.textContent = "Drop one photo.";
    }
  });
}

function show(section, figures) {
  for (const place of section.querySelectorAll("[data-figure]")) {
    place.textContent = figures[place.dataset.figure] ?? "";
  }
  for (const bar of section.querySelectorAll("[data-progress]")) {
    bar.value = figures.share;
  }
  for (const body of section.querySelectorAll("[data-rows]")) {
    const rows = figures[body.dataset.rows];
    if (!rows.length) {
      continue;
    }
    body.replaceChildren(
      ...rows.map((values) => {
        const row = document.createElement("tr");
        values.forEach((value, place) => {
          const cell = document.createElement(place ? "td" : "th");
          if (place) {
            cell.className = "number";
          } else {
            cell.scope = "row";
          }
          cell.textContent = value;
          row.append(cell);
        });
        return row;
      }),
    );
  }
}

for (const section of document.querySelectorAll("[data-live]")) {
  let paused = false;
  const line = section.querySelector(".head p");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = "Pause";
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on" : "Pause";
  });
  line.append(button);
  const timer = setInterval(async () => {
    if (paused || document.hidden) {
      return;
    }
    try {
      const answer = await fetch(section.dataset.live, { credentials: "same-origin", cache: "no-store" });
      if (answer.status === 401) {
        clearInterval(timer);
        location.reload(); // it says that the session has ended
        return;
      }
      const figures = await answer.json();
      show(section, figures);
      if (figures.running === false) {
        clearInterval(timer);
        location.reload(); // the result is a page of its own
      }
    } catch {
      button.textContent = "No answer from the gateway; pause"; // it is asked again
    }
  }, 2000);
}
