// AMX on processors without it, for tests: what they refuse is carried out by the handler of SIGILL.
#pragma once

namespace tandem {

// From here on, tile instructions of this module work in every thread. What the unit itself would answer with an exception,
// and every other illegal instruction, ends the process with a sentence on stderr.
void trap_amx();

}  // namespace tandem
