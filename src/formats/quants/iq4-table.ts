/** The sixteen levels of iq4_nl and iq4_xs, in code order. */
export const IQ4_LEVELS = new Int8Array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]);
