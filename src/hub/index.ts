/** The hub room: names of models, what a hub has, downloads, and the cache of files. */
export { Cache } from './cache.ts';
export { type CachedModel, cachedModels, findCached, removeCached } from './models.ts';
export { type Pulled, type PullOptions, type PullProgress, pull } from './pull.ts';
export { formatReference, type ModelReference, parseReference, toReference } from './reference.ts';
export { findModel, openVariant, type RemoteModel } from './remote.ts';
export { localModel } from './resolve.ts';
export { type HubSettings, hubSettings } from './settings.ts';
export { chooseVariant, type Variant } from './variants.ts';
