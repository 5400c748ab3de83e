#include "core/status.h"

namespace tandem {

const char* code_name(Code code) {
  switch (code) {
    case Code::ok: return "OK";
    case Code::file_not_found: return "FILE_NOT_FOUND";
    case Code::file_io: return "FILE_IO";
    case Code::format_unsupported: return "FORMAT_UNSUPPORTED";
    case Code::model_invalid: return "MODEL_INVALID";
    case Code::program_invalid: return "PROGRAM_INVALID";
    case Code::request_invalid: return "REQUEST_INVALID";
    case Code::out_of_memory: return "OUT_OF_MEMORY";
    case Code::native_failed: return "NATIVE_FAILED";
    case Code::aborted: return "ABORTED";
    case Code::disposed: return "DISPOSED";
  }
  return "NATIVE_FAILED";
}

}  // namespace tandem
