// Elements, and values as text. Texts become text nodes: nothing here is ever parsed as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const MISSING = "\u2013"; // stands for a missing value
const CHARACTER = 6.3; // width of a character of small type, in pixels

const byId = (id) => document.getElementById(id);
const html = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

const isMissing = (value) => value === undefined || value === null;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (isMissing(value) || value === false) continue;
    // The policy of the page forbids style attributes, but not styles that a script sets.
    if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => !isMissing(child)));
  return element;
}

// Costs or qualities, in the order of the table.
const withRole = (role) => Object.keys(state.data.columns).filter((name) => state.data.columns[name].role === role);
const isQuality = (column) => state.data.columns[column]?.role === "quality";

// The unit in which a column's values up to `largest` are short to read.
function unitOf(column, largest) {
  const { stored, units, unit } = state.data.columns[column];
  const fitting = units.filter(([size]) => Math.abs(largest) * stored >= size);
  const [size, prefix] = fitting.length ? fitting[fitting.length - 1] : units[0];
  return { factor: stored / size, name: prefix + unit };
}

function labelled(column, unit) {
  const { label } = state.data.columns[column];
  return unit.name ? `${label}, ${unit.name}` : label;
}

// The short name of a column with its unit, for a heading.
function headingOf(column, unit) {
  // The unit of multiply-accumulates, such as GMACs, says what they are.
  if (column === "gmacs") return unit.name;
  const { short } = state.data.columns[column];
  return unit.name ? `${short}, ${unit.name}` : short;
}

function formatValue(column, value) {
  const unit = unitOf(column, value);
  const digits = isQuality(column) ? value.toFixed(2) : formatNumber(value * unit.factor);
  return unit.name ? `${digits} ${unit.name}` : digits;
}

function formatNumber(value, digits = 4) {
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential(digits - 2);
  return value.toLocaleString("en", { maximumSignificantDigits: digits });
}

// Any value of a swept field or a cell.
function plainText(value) {
  if (isMissing(value)) return MISSING;
  return typeof value === "number" ? formatNumber(value) : String(value);
}

// A name that may wrap after each of its dots.
function breakable(name) {
  return name.split(/(?<=\.)/).flatMap((part) => [part, html("wbr")]);
}

// A name that fits into `width` pixels of small type; its end says more than its beginning.
function clipped(name, width) {
  const fits = Math.max(4, Math.floor(width / CHARACTER + 0.5));
  return name.length <= fits ? name : `\u2026${name.slice(name.length - fits + 1)}`;
}

// A text that fits into `width` pixels of small type.
function shortened(text, width) {
  const fits = Math.max(4, Math.floor(width / CHARACTER + 0.5));
  return text.length <= fits ? text : `${text.slice(0, fits - 1)}\u2026`;
}
