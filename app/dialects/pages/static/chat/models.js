// The server's models: which there are, which is chosen, and how far one is loaded.

import { ApiError, ask } from "../lib/api.js";
import { createStore } from "../lib/ui.js";

const LOOK_MS = 400;
const CHOSEN = "llmhost.model";

/**
 * `list` of { id, name, loaded, progress, context, quantisation, bytes }, `chosen` an id or null,
 * `loading` the id of the one that this page waits for.
 */
export const models = createStore({ list: [], chosen: null, loading: null, error: null });

/** The chosen one's record, or null. */
export const chosenModel = ({ list, chosen }) => list.find(({ id }) => id === chosen) ?? null;

/** Ask the server anew. */
export async function lookAtModels() {
  const [{ models: found, current_model: current }, { data }] = await Promise.all([
    ask("models/available"), ask("v1/models"),
  ]);
  const rooms = new Map(data.map((model) => [model.id, model.max_model_len]));
  const list = found.map((model) => ({
    id: model.id, name: model.name, loaded: model.is_loaded, progress: model.loading_progress,
    context: rooms.get(model.id) ?? model.context_length, quantisation: model.quantization,
    bytes: model.size_bytes,
  }));
  const known = (id) => list.some((model) => model.id === id);
  const wanted = [models.get().chosen, remembered(), current, list[0]?.id].find(known) ?? null;
  models.set({ list, chosen: wanted });
}

/** Choose a model and load it. */
export async function chooseModel(id) {
  models.set({ chosen: id, error: null });
  try {
    localStorage.setItem(CHOSEN, id);
  } catch {
    // storage is off: chosen until the page is left
  }
  await loadModel(id);
}

/**
 * See to it that a model is in memory, and tell how far it is. Who may not load models is no error:
 * a question loads the model that it names.
 */
export async function loadModel(id) {
  const { list, loading } = models.get();
  if (loading === id || list.find((model) => model.id === id)?.loaded) return;
  models.set({ loading: id, error: null });
  const looking = setInterval(() => lookAtModels().catch(() => {}), LOOK_MS); // the load tells what is wrong
  try {
    await ask("models/load", { method: "POST", body: { model_id: id } });
  } catch (error) {
    const mayNot = error instanceof ApiError && [401, 403].includes(error.status);
    if (!mayNot) models.set({ error: error.message });
  } finally {
    clearInterval(looking);
    if (models.get().loading === id) models.set({ loading: null });
    await lookAtModels().catch((error) => models.set({ error: error.message }));
  }
}

function remembered() {
  try {
    return localStorage.getItem(CHOSEN);
  } catch {
    return null;
  }
}
