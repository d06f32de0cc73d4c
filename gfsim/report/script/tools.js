// Packed arrays, words for numbers, and the making of elements: with createElement and textContent only,
// nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8; // classes k0 .. k7 of page.css

/** A packed array as {shape, at(...)}: flat numbers in row-major order. */
function unpacked(source) {
  const text = atob(source.data);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const size = { "<f8": 8, "<f4": 4, bf16: 2 }[source.type];
  const values = new Float64Array(bytes.length / size);
  const scratch = new DataView(new ArrayBuffer(4));
  for (let k = 0; k < values.length; k += 1) {
    if (size === 8) values[k] = view.getFloat64(8 * k, true);
    else if (size === 4) values[k] = view.getFloat32(4 * k, true);
    else {
      scratch.setUint16(2, view.getUint16(2 * k, true), true); // the upper half of a float32
      values[k] = scratch.getFloat32(0, true);
    }
  }
  return { values, shape: source.shape };
}

/** Column k of a packed (frames, columns) array. */
function column(array, k) {
  const width = array.shape[1];
  return Float64Array.from({ length: array.shape[0] }, (_, frame) => array.values[frame * width + k]);
}

function shown(value) {
  if (!Number.isFinite(value)) return String(value);
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const power = (exponent) => "10" + Array.from(String(exponent), (digit) => RAISED[digit]).join("");

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

function activeWords(active) {
  const count = active.reduce((sum, units) => sum + units.length, 0);
  if (count === 0) return "origin";
  return active.map((units) => units.length).join("-") + " active";
}
