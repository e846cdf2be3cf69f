// Drawings of figures, each with the same figures as a table for those who can't see it.

import { html } from "../lib/ui.js";
import { duration, quantile, round } from "./metrics.js";

const WIDTH = 320;
const HEIGHT = 96;
const FOOT = 16;

/** How often what took how long. `data` is what `histogram` made. */
export function Histogram({ title, data }) {
  const shown = withoutEmptyEnds(data.bars);
  const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => quantile(data, share));
  const summary = data.count
    ? `half within ${duration(p50)}, 95 of 100 within ${duration(p95)}, 99 of 100 within ${duration(p99)}`
    : "nothing yet";
  return html`<figure class="chart">
    <figcaption><h3>${title}</h3><p class="tiny muted number">${round(data.count)} in all; ${summary}</p></figcaption>
    <${Bars} title=${title} bars=${shown} summary=${summary} />
    ${shown.length > 0 && html`<details><summary class="tiny">As a table</summary>
      <table class="plain"><thead><tr><th scope="col">Longer than</th><th scope="col">Up to</th><th scope="col" class="number">How many</th></tr></thead>
        <tbody>${shown.map(({ from, to, count }) => html`<tr key=${to}><td>${duration(from)}</td><td>${duration(to)}</td>
          <td class="number">${round(count)}</td></tr>`)}</tbody></table></details>`}
  </figure>`;
}

function Bars({ title, bars, summary }) {
  const highest = Math.max(1, ...bars.map(({ count }) => count));
  const step = WIDTH / Math.max(1, bars.length);
  const room = HEIGHT - FOOT;
  const marked = bars.length ? [...new Set([0, Math.floor(bars.length / 2), bars.length - 1])] : [];
  return html`<svg class="drawing" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${title}: ${summary}`}>
    <line class="axis" x1="0" x2=${WIDTH} y1=${room} y2=${room} />
    ${bars.map(({ to, count }, index) => {
      const height = (count / highest) * (room - 4);
      return html`<rect key=${to} class="bar" x=${index * step + 1} y=${room - height} width=${Math.max(1, step - 2)} height=${height} />`;
    })}
    ${marked.map((index) => html`<text key=${index} class="mark" x=${(index + 0.5) * step} y=${HEIGHT - 3}
      text-anchor=${index === 0 ? "start" : index === bars.length - 1 ? "end" : "middle"}>≤ ${duration(bars[index].to)}</text>`)}
  </svg>`;
}

/** Tokens per second over the last minutes. */
export function Rates({ rates }) {
  const highest = Math.max(1, ...rates.map(({ generated }) => generated));
  const now = rates.at(-1)?.generated ?? 0;
  const points = rates.map(({ generated }, index) => {
    const x = rates.length < 2 ? 0 : (index / (rates.length - 1)) * WIDTH;
    return `${x.toFixed(1)},${(HEIGHT - FOOT - (generated / highest) * (HEIGHT - FOOT - 4)).toFixed(1)}`;
  });
  const summary = `now ${round(now)}, at most ${round(highest)} in the last ${duration(spanOf(rates))}`;
  return html`<figure class="chart">
    <figcaption><h3>Tokens per second</h3><p class="tiny muted number">${summary}</p></figcaption>
    <svg class="drawing" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`Tokens per second: ${summary}`}>
      <line class="axis" x1="0" x2=${WIDTH} y1=${HEIGHT - FOOT} y2=${HEIGHT - FOOT} />
      <polyline class="line" points=${points.join(" ")} />
    </svg>
    ${rates.length > 0 && html`<details><summary class="tiny">As a table</summary>
      <table class="plain"><thead><tr><th scope="col">At</th><th scope="col" class="number">Generated</th><th scope="col" class="number">Of prompts</th></tr></thead>
        <tbody>${rates.slice(-15).reverse().map(({ at, generated, prompt }) => html`<tr key=${at}>
          <td>${new Date(at).toLocaleTimeString()}</td><td class="number">${round(generated)}</td><td class="number">${round(prompt)}</td></tr>`)}</tbody></table></details>`}
  </figure>`;
}

function spanOf(rates) {
  return rates.length < 2 ? 0 : (rates.at(-1).at - rates[0].at) / 1000;
}

function withoutEmptyEnds(bars) {
  const filled = bars.flatMap(({ count }, index) => (count > 0 ? [index] : []));
  return filled.length ? bars.slice(filled[0], filled.at(-1) + 1) : [];
}
