// find_program() and follow_scripts() of loader.h.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "base/unique_fd.h"
#include "dom0-daemon/hypervisor/usermode/loader.h"

namespace xenspan::hypervisor::usermode {
namespace {

constexpr const char* kDefaultPath = "/bin:/usr/bin";  // confstr(_CS_PATH)
constexpr std::size_t kScriptLine = 256;               // the kernel's BINPRM_BUF_SIZE
constexpr int kMaxScripts = 5;  // a script's interpreter may be a script, this often
constexpr std::string_view kBlanks = " \t";

std::string absolute(const std::string& path, const std::string& cwd) {
  if (path[0] == '/') return path;
  const std::string_view rest = path.starts_with("./") ? std::string_view(path).substr(2) : path;
  std::string whole = cwd;
  if (whole.empty() || whole.back() != '/') whole += '/';
  return whole.append(rest);
}

// 0 when execve would start it, else an errno.
int check_executable(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EACCES;
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) return errno;
  return 0;
}

Error cannot_run(int error, const std::string& path) {
  struct stat status {};
  if (error == EACCES && stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return {EACCES, path + " is a directory: name a program"};
    if (!S_ISREG(status.st_mode)) {
      return {EACCES, path + " is not a regular file: name a program"};
    }
    return {EACCES, fmt::format("{}: no execute permission: run `chmod +x {}`", path, path)};
  }
  if (error == ENOENT || error == ENOTDIR) {
    return {ENOENT, fmt::format("{}: no such program: check the name and the path", path)};
  }
  return system_error(error, path);
}

struct ScriptLine {
  std::string interpreter;
  std::string argument;  // empty when there is none
};

// The kernel's rules (fs/binfmt_script.c): one argument at most, blanks around it cut, the line
// ends at a newline.
Result<ScriptLine> parse_script_line(const std::string& path, std::string_view line) {
  const Error bad{ENOEXEC, path + " is a script, but its first line names no interpreter after #!"};
  line.remove_prefix(2);
  const std::size_t end = line.find_first_of(std::string_view("\n\0", 2));
  const bool whole = end != std::string_view::npos;
  if (whole) line = line.substr(0, end);
  const std::size_t start = line.find_first_not_of(kBlanks);
  if (start == std::string_view::npos) return bad;
  line.remove_prefix(start);
  const std::size_t length = line.find_first_of(kBlanks);
  // A name that fills the buffer may be cut off.
  if (length == std::string_view::npos && !whole) return bad;
  ScriptLine result;
  result.interpreter = line.substr(0, length);
  if (length != std::string_view::npos) {
    line.remove_prefix(length);
    const std::size_t first = line.find_first_not_of(kBlanks);
    if (first != std::string_view::npos) {
      line = line.substr(first, line.find_last_not_of(kBlanks) - first + 1);
      result.argument = line;
    }
  }
  return result;
}

// The first bytes of the file; empty when it cannot be read (load() says why).
std::string first_bytes(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (!fd || fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return {};
  std::string bytes(kScriptLine, '\0');
  const ssize_t got = pread(fd.get(), bytes.data(), bytes.size(), 0);
  bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  // A file that ends without a newline ends its first line as well.
  if (bytes.size() < kScriptLine) bytes += '\n';
  return bytes;
}

}  // namespace

Result<std::string> find_program(const std::string& name, const std::string& search_path,
                                 const std::string& cwd) {
  if (name.empty()) return Error{ENOENT, "the program's name is empty: name a program"};
  if (name.find('/') != std::string::npos) {
    const std::string path = absolute(name, cwd);
    if (const int error = check_executable(path)) return cannot_run(error, path);
    return path;
  }
  const std::string_view list = search_path.empty() ? std::string_view(kDefaultPath) : search_path;
  std::string denied;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(':', at), list.size());
    const std::string directory(list.substr(at, end - at));
    at = end + 1;
    const std::string path = absolute(directory.empty() ? name : directory + "/" + name, cwd);
    const int error = check_executable(path);
    if (error == 0) return path;
    if (error == EACCES && denied.empty()) denied = path;
  }
  if (!denied.empty()) return cannot_run(EACCES, denied);
  return Error{ENOENT, fmt::format("{}: command not found: install it or give its path", name)};
}

Result<Program> follow_scripts(Program program) {
  for (int depth = 0;; ++depth) {
    const std::string line = first_bytes(program.path);
    if (!line.starts_with("#!")) return program;
    if (depth == kMaxScripts) {
      return Error{ELOOP, program.path + " is a script whose interpreters are scripts without end"};
    }
    if (const int error = check_executable(program.path)) return cannot_run(error, program.path);
    Result<ScriptLine> parsed = parse_script_line(program.path, line);
    if (!parsed) return parsed.error();
    if (const int error = check_executable(parsed->interpreter)) {
      return Error{error == ENOTDIR ? ENOENT : error,
                   fmt::format("{} is a script for {}, which cannot be run: install it",
                               program.path, parsed->interpreter)};
    }
    std::vector<std::string> arguments{parsed->interpreter};
    if (!parsed->argument.empty()) arguments.push_back(parsed->argument);
    arguments.push_back(depth == 0 && !program.given.empty() ? program.given : program.path);
    if (!program.arguments.empty()) {
      arguments.insert(arguments.end(), program.arguments.begin() + 1, program.arguments.end());
    }
    program.arguments = std::move(arguments);
    program.path = std::move(parsed->interpreter);
  }
}

}  // namespace xenspan::hypervisor::usermode
