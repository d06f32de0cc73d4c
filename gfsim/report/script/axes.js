// Scales from values to pixels, with their ticks.

function extent(lists) {
  let low = Infinity,
    high = -Infinity,
    least = Infinity;
  for (const list of lists) {
    for (const value of list) {
      if (!Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
      if (value > 0) least = Math.min(least, value);
    }
  }
  return { low, high, least };
}

/** A scale from values to pixels, logarithmic where positive values span more than a factor of 30. */
function scaleFor(lists, from, to, { fixed = null, logarithmic = true } = {}) {
  const { low, high, least } = extent(lists);
  if (fixed) return linear(fixed[0], fixed[1], from, to);
  if (!(high > -Infinity)) return linear(0, 1, from, to);
  if (logarithmic && low >= 0 && high > 30 * least) {
    const bottom = Math.log10(Math.max(least, high * 1e-16)) - 0.15,
      top = Math.log10(high) + 0.15;
    const place = (value) => (value > 0 ? from + ((Math.log10(value) - bottom) / (top - bottom)) * (to - from) : NaN);
    const step = Math.max(1, Math.ceil((top - bottom) / 7));
    const ticks = [];
    for (let e = Math.ceil(bottom); e <= top; e += 1) if (e % step === 0) ticks.push([10 ** e, power(e)]);
    if (ticks.length < 2) return linear(low, high, from, to, 0.05);
    return { place, ticks };
  }
  return linear(low, high, from, to, from > to ? 0.05 : 0);
}

function linear(low, high, from, to, margin = 0) {
  let wide = high - low;
  if (!(wide > 0)) wide = Math.abs(high) || 1;
  const bottom = low - margin * wide,
    top = low + wide + margin * wide;
  const place = (value) => from + ((value - bottom) / (top - bottom)) * (to - from);
  const raw = (top - bottom) / 6,
    size = 10 ** Math.floor(Math.log10(raw));
  const step = size * [1, 2, 5, 10].find((factor) => factor * size >= raw);
  const ticks = [];
  for (let k = Math.ceil(bottom / step); k * step <= top + 1e-9 * step; k += 1) {
    ticks.push([k * step, shown(Math.abs(k) < 1e-9 ? 0 : Number((k * step).toPrecision(10)))]);
  }
  return { place, ticks };
}
