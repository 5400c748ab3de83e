/** Models as they lie on a hub: what there is, and checkpoints opened by their headers alone, before any download. */
import type { Checkpoint } from '../formats/checkpoint.ts';
import { openGguf } from '../formats/gguf.ts';
import type { HttpOptions } from '../formats/http.ts';
import { httpFolder } from '../formats/http-source.ts';
import { openHuggingFace } from '../formats/huggingface.ts';
import { fileUrl, type HubFile, hubOptions, type Listing, listRepository } from './listing.ts';
import type { ModelReference } from './reference.ts';
import type { HubSettings } from './settings.ts';
import { baseName, type Variant, variantsOf } from './variants.ts';

export interface RemoteModel extends Listing {
  /** Smallest first. */
  readonly variants: readonly Variant<HubFile>[];
}

/** Lists a repository and what can be chosen in it. Two or more small requests. */
export async function findModel(
  reference: ModelReference,
  settings: HubSettings,
  http: HttpOptions = {},
): Promise<RemoteModel> {
  const listing = await listRepository(reference, settings, http);
  return { ...listing, variants: variantsOf(listing.files) };
}

/**
 * Opens a variant by range requests: some hundred kilobytes to some megabytes of headers, whatever its size. Tensors can be
 * read, each costs its bytes; native cannot map such files.
 */
export async function openVariant(
  model: RemoteModel,
  variant: Variant<HubFile>,
  settings: HubSettings,
  http: HttpOptions & { readonly onBytes?: (bytes: number) => void } = {},
): Promise<Checkpoint> {
  const files = variant.files.map(({ path, size }) => ({
    name: baseName(path),
    url: fileUrl(model, path, settings),
    size,
  }));
  const options = { ...http, ...hubOptions(settings, model.repository, model.commit, http) };
  const folder = httpFolder(`${model.repository}:${variant.name}`, files, options);
  return variant.kind === 'gguf' ? openGguf(folder, files[0].name) : openHuggingFace(folder);
}
