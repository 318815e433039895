"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const form = get("controls"), slider = get("tau"), strip = get("strip");

const query = () => data.queries[form.elements.image.value];
const steps = () => query().depths[form.elements.depth.value];

function put(id, uri, alt) {
  get(id).src = uri;
  get(id).alt = alt;
}

function distance(step) {
  return `distance ${step.found[0][2]}: ${step.closer} % of random pairs are as close, ` +
    `so this is ${step.small ? "small" : "not small"}`;
}

function show() {
  const chosen = query(), tau = Number(slider.value), step = steps()[tau], [index, label] = step.found[0];
  get("tau-value").textContent = slider.value;
  slider.setAttribute("aria-valuetext", `${tau}: ${label}`);
  put("x-image", chosen.image, `The image x: ${chosen.label} ${chosen.index}`);
  put("moved-array", step.moved, `The array of x, translated by ${tau}`);
  get("x-text").textContent = `x, ${chosen.label}; its array, translated by ${tau}`;
  put("found-image", data.images[index], `The image found: ${label} ${index}`);
  put("found-array", step.array, "The array of the image found");
  get("found-text").textContent = `found: ${label}, and its array`;
  get("found-text").classList.toggle("other", label !== chosen.label);
  const all = step.found.map(([i, name, d], k) => `${k + 1}. ${name} ${i} (${d})`).join(", ");
  get("details").textContent = `x is ${data.set} image ${chosen.index}; ${distance(step)}. Training images in their order: ` +
    `${all}.`;
  for (const button of strip.children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.tau) === tau));
  }
}

function rebuild() {
  const chosen = query();
  slider.max = steps().length - 1;
  [get("low").textContent, get("high").textContent] = data.scales[form.elements.depth.value];
  strip.replaceChildren(...steps().map((step, tau) => {
    const [index, label] = step.found[0];
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.tau = tau;
    button.title = `${label}, training image ${index}; ${distance(step)}`;
    for (const uri of [data.images[index], step.array]) {
      const image = document.createElement("img");
      image.className = "pixels";
      image.src = uri;
      image.alt = "";
      button.append(image);
    }
    const text = document.createElement("span");
    text.textContent = `τ = ${tau} ${label}`;
    text.className = label === chosen.label ? "" : "other";
    button.append(text);
    button.addEventListener("click", () => { slider.value = tau; show(); });
    return button;
  }));
  show();
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => event.target !== slider && rebuild());
slider.addEventListener("input", show);
for (const part of [form, get("stage"), strip, get("array-scale")]) {
  part.hidden = false;
}
rebuild();
