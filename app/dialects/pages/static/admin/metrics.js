// Prometheus' text format, as far as this server writes it, and figures made of it.

/** Samples by name: `[{ labels, value }]`. */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const end = line.lastIndexOf(" ");
    const brace = line.indexOf("{");
    const name = line.slice(0, brace < 0 ? end : brace);
    const labels = {};
    if (brace >= 0) {
      for (const [, key, value] of line.slice(brace, end).matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
        labels[key] = value.replaceAll(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
      }
    }
    const value = Number(line.slice(end + 1).replace("Inf", "Infinity"));
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels, value });
  }
  return found;
}

/** All samples of a name together; null: there is none. */
export function total(samples, name, wanted = () => true) {
  const values = (samples.get(name) ?? []).filter(({ labels }) => wanted(labels));
  return values.length ? values.reduce((sum, { value }) => sum + value, 0) : null;
}

/** A histogram over all models: `{ count, sum, bars: [{ from, to, count }] }`, less an earlier one. */
export function histogram(samples, stem, earlier = null) {
  const below = cumulated(samples, stem);
  const before = earlier === null ? new Map() : cumulated(earlier, stem);
  const bounds = [...below.keys()].sort((a, b) => a - b);
  let from = 0;
  let last = 0;
  const bars = bounds.map((to) => {
    const upTo = below.get(to) - (before.get(to) ?? 0);
    const bar = { from, to, count: upTo - last };
    from = to;
    last = upTo;
    return bar;
  });
  const less = (name) => (total(samples, name) ?? 0) - (earlier === null ? 0 : total(earlier, name) ?? 0);
  return { count: less(`${stem}_count`), sum: less(`${stem}_sum`), bars };
}

/** A quantile, between a bar's ends in proportion; null: nothing was counted. */
export function quantile({ count, bars }, share) {
  let left = count * share;
  if (!count) return null;
  for (const { from, to, count: inside } of bars) {
    if (left <= inside && inside) return to === Infinity ? from : from + ((to - from) * left) / inside;
    left -= inside;
  }
  return bars.at(-1)?.from ?? null;
}

function cumulated(samples, stem) {
  const below = new Map();
  for (const { labels, value } of samples.get(`${stem}_bucket`) ?? []) {
    const to = Number(labels.le.replace("+Inf", "Infinity"));
    below.set(to, (below.get(to) ?? 0) + value);
  }
  return below;
}

/** A time in the unit that suits it. */
export function duration(seconds) {
  if (seconds === null || Number.isNaN(seconds)) return "–";
  if (seconds === Infinity) return "∞";
  if (seconds < 1) return `${round(seconds * 1000)} ms`;
  return seconds < 120 ? `${round(seconds)} s` : `${round(seconds / 60)} min`;
}

/** Bytes in the unit that suits them. */
export function bytes(count) {
  if (count === null) return "–";
  return count < 1e9 ? `${round(count / 1e6)} MB` : `${round(count / 1e9)} GB`;
}

export function percent(share) {
  return share === null || Number.isNaN(share) ? "–" : `${round(share * 100)} %`;
}

/** Three figures at most. */
export function round(value) {
  return Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 3 });
}
