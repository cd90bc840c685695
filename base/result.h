// Result<T>: a value, or an errno with one sentence for a person.
//
// What every room of the house uses to report an error that is not fatal to the process. The
// sentence names the thing that failed and the remedy; it has no trailing full stop and no newline,
// so that callers can put "name: " before it. Threading: a Result is a plain value. Ownership: it
// owns what it carries.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace xenspan {

struct Error {
  int code = 0;         // an errno value; 0 only when no errno applies
  std::string message;  // "cannot open /etc/xenspan/cluster.key: No such file or directory: run
                        // `xenspan cluster-key`"
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}      // NOLINT: implicit by design, as std::expected
  Result(Error error) : value_(std::move(error)) {}  // NOLINT
  bool ok() const { return std::holds_alternative<T>(value_); }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<T>(value_); }
  const T& value() const& { return std::get<T>(value_); }
  T&& value() && { return std::get<T>(std::move(value_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const { return std::get<Error>(value_); }

 private:
  std::variant<T, Error> value_;
};

// Result<void> is named Status: success, or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : failed_(true), error_(std::move(error)) {}  // NOLINT
  bool ok() const { return !failed_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const { return error_; }

 private:
  bool failed_ = false;
  Error error_;
};

// "WHAT: strerror(code)", with ": REMEDY" appended when given.
Error system_error(int code, const std::string& what, const std::string& remedy = {});

}  // namespace xenspan
