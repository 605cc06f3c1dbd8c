// Elements, and values as texts. Texts become text nodes: nothing here is ever parsed as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
const html = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Column: what it is called, how many of its stored units make one of those below, and those.
const PREFIXES = [[1, ""], [1e3, "k"], [1e6, "M"], [1e9, "G"], [1e12, "T"]];
const COLUMNS = {
  gmacs: { label: "multiply-accumulates per image", short: "MACs", stored: 1e9, units: PREFIXES, unit: "MACs" },
  params: { label: "parameters", short: "parameters", stored: 1, units: PREFIXES, unit: "" },
  latency_ms: { label: "latency", short: "latency", stored: 1, units: [[1, "ms"]], unit: "" },
  seconds: { label: "time of search and fine-tuning", short: "time", stored: 1,
             units: [[1, "s"], [60, "min"], [3600, "h"]], unit: "" },
  gpu_hours: { label: "GPU hours of search and fine-tuning", short: "GPU hours", stored: 1, units: [[1, "h"]], unit: "" },
  top1: { label: "top-1 accuracy", short: "top-1", stored: 1, units: [[1, "%"]], unit: "" },
  top5: { label: "top-5 accuracy", short: "top-5", stored: 1, units: [[1, "%"]], unit: "" },
  val_top1: { label: "top-1 accuracy on validation images", short: "validation top-1", stored: 1,
              units: [[1, "%"]], unit: "" },
};
const COSTS = ["gmacs", "params", "latency_ms", "seconds", "gpu_hours"];
const QUALITIES = ["top1", "top5", "val_top1"];

// The unit in which a column's values up to `largest` are short to read.
function unitOf(column, largest) {
  const { stored, units, unit } = COLUMNS[column];
  const fitting = units.filter(([size]) => Math.abs(largest) * stored >= size);
  const [size, prefix] = fitting.length ? fitting[fitting.length - 1] : units[0];
  return { factor: stored / size, name: prefix + unit };
}

function labelled(column, unit) {
  return COLUMNS[column].label + (unit.name ? `, ${unit.name}` : "");
}

function shown(column, value) {
  const unit = unitOf(column, value);
  const text = QUALITIES.includes(column) ? value.toFixed(2) : number(value * unit.factor);
  return unit.name ? `${text} ${unit.name}` : text;
}

function number(value, digits = 4) {
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(digits - 2);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

// Any value of a swept field or a cell.
function text(value) {
  if (value === null || value === undefined) return "\u2013";
  return typeof value === "number" ? number(value) : String(value);
}

// A name that may go on in the next line after each of its dots.
function breakable(name) {
  return name.split(/(?<=\.)/).flatMap((part) => [part, html("wbr")]);
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

// A name that fits into `room` pixels of small type; its end tells more than its beginning.
function clipped(name, room) {
  const fits = Math.max(4, Math.floor(room / 6.3 + 0.5));
  return name.length <= fits ? name : `\u2026${name.slice(name.length - fits + 1)}`;
}
