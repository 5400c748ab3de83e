/** The profile of this machine: measured once and kept, with the formats of a model added where they were not measured. */
import { keepProfile, keptMeasurement, machineBusy, withKernels } from '../engine/this-machine.ts';
import type { FormatName } from '../formats/dtype.ts';
import type { MachineProfile } from '../placement/profile.ts';
import { probeMachine } from './bench/probe.ts';
import { probeKernels, USUAL_FORMATS } from './bench/probe-kernels.ts';
import { describeMachine } from './bench/report.ts';
import { paint } from './terminal.ts';

/**
 * `fresh`: measured anew; so is what was measured beside other work, once that is over. `formats`: whose kernels have to be in it.
 * NATIVE_UNAVAILABLE where there is no native core.
 */
export async function profileHere({
  fresh = false,
  formats = [],
}: {
  readonly fresh?: boolean;
  readonly formats?: readonly FormatName[];
}): Promise<MachineProfile> {
  const before = fresh ? undefined : await keptMeasurement();
  const busy = machineBusy();
  if (before === undefined || (before.busy && !busy)) {
    tell(`measuring this machine${before ? ' again: it was busy the last time' : ', once'}: some ten seconds`);
    if (busy)
      tell('other programs are busy here now: all figures that follow will be too low; measured again when they rest');
    const { profile } = await probeMachine([...new Set([...USUAL_FORMATS, ...formats])]);
    await keepProfile(profile, busy);
    return profile;
  }
  const kept = before.profile;
  const known = new Set(kept.kernels?.matrices.map(({ format }) => format));
  const missing = formats.filter((format) => !known.has(format) && format !== 'f32');
  if (missing.length === 0) return kept;
  tell(`measuring the kernels of ${missing.join(', ')}`);
  const { lastLevelCacheBytes } = describeMachine();
  const profile = withKernels(kept, await probeKernels({ formats: missing, lastLevelCacheBytes }));
  await keepProfile(profile, before.busy || busy);
  return profile;
}

function tell(text: string): void {
  process.stderr.write(`${paint('dim', text, process.stderr)}\n`);
}
