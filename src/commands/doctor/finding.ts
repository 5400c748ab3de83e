/** What the doctor says about one thing. */
export interface Finding {
  /** What was looked at, a few words: `huge pages`. */
  readonly name: string;
  /** `ok`; `note`: fine, or not to be helped, but worth knowing; `problem`: costs speed or fails, and can be mended. */
  readonly state: 'ok' | 'note' | 'problem';
  /** What was found, with the values. */
  readonly found: string;
  /** What it does to a model. */
  readonly why?: string;
  /** What to do, a command where there is one. */
  readonly fix?: string;
}
