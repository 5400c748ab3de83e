// A result that is an error or nothing. No exceptions cross rooms, nothing aborts, nothing prints.
// Messages follow the house's form: "[native] rule; what was given; what to do".
#pragma once

#include <string>
#include <utility>

namespace tandem {

// Names equal the ErrorCode of src/errors.ts; `code_name` gives them.
enum class Code {
  ok,
  file_not_found,
  file_io,
  format_unsupported,
  model_invalid,
  program_invalid,
  request_invalid,
  out_of_memory,
  native_failed,
  aborted,
  disposed,
};

const char* code_name(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::ok;
  std::string message_;
};

#define TANDEM_TRY(expression)                   \
  do {                                           \
    ::tandem::Status status_ = (expression);     \
    if (!status_.ok()) return status_;           \
  } while (0)

}  // namespace tandem
