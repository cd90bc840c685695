#include "dom0-daemon/hypervisor/usermode/loader.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "dom0-daemon/hypervisor/usermode/initial_stack.h"
#include "dom0-daemon/hypervisor/usermode/window.h"
#include "tests/unit/layout_programs/run_loaded.h"

namespace xenspan::hypervisor::usermode {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << stream.rdbuf();
  return bytes.str();
}

class LoaderTest : public testing::Test {
 protected:
  LoaderTest() {
    char name[] = "/tmp/xenspan-loader-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~LoaderTest() override { fs::remove_all(directory_); }

  std::string file(const std::string& name, const std::string& bytes, int mode = 0755) {
    const std::string path = directory_ + "/" + name;
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    chmod(path.c_str(), mode);
    return path;
  }
  // A copy of a real program with its bytes changed by `change`.
  template <typename Change>
  std::string mutant(Change change, const std::string& original = "/bin/true") {
    std::string bytes = read_file(original);
    change(bytes, *reinterpret_cast<Elf64_Ehdr*>(bytes.data()),
           reinterpret_cast<Elf64_Phdr*>(bytes.data() + sizeof(Elf64_Ehdr)));
    return file("mutant", bytes);
  }
  Error refusal(const std::string& path) {
    Image image;
    Program program;
    program.path = path;
    program.arguments = {path};
    const Result<Entry> entry = load(program, image.space, image.writer());
    EXPECT_FALSE(entry.ok());
    return entry.ok() ? Error{} : entry.error();
  }

  std::string directory_;
};

Program program_of(const std::string& path, std::vector<std::string> more = {}) {
  Program program;
  program.path = path;
  program.arguments = std::move(more);
  program.arguments.insert(program.arguments.begin(), path);
  program.environment = {"HOME=/nowhere", "EMPTY="};
  program.uid = 4711;
  program.gid = 4712;
  return program;
}

class BuiltProgramTest : public testing::TestWithParam<const char*> {};

TEST_P(BuiltProgramTest, RunsWithEverythingInPlace) {
  const std::string path = built_program(GetParam());
  if (path.empty()) GTEST_SKIP() << "this build has no " << GetParam();
  Image image;
  const Result<Entry> entry =
      load(program_of(path, {"one", "", "three four"}), image.space, image.writer());
  ASSERT_TRUE(entry.ok()) << entry.error().message;
  EXPECT_EQ(entry->sp % 16, 0u);
  EXPECT_TRUE(image.writes_are_mapped());
  EXPECT_EQ(image.space.brk_now(), entry->brk_start);
  EXPECT_EQ(image.space.find(entry->sp)->name, "[stack]");
  EXPECT_EQ(image.space.find(entry->sp)->range, (Range{kStackTop - kStackBytes, kStackTop}));
  EXPECT_EQ(image.space.find(entry->pc)->prot, PROT_READ | PROT_EXEC);
  EXPECT_EQ(image.space.find(entry->brk_start), nullptr);

  const Outcome result = run(image, *entry);
  EXPECT_EQ(result.status, 7) << result.output;
  EXPECT_THAT(result.output, HasSubstr("executable " + path + "\nargument " + path +
                                       "\nargument one\nargument \nargument three four\n"
                                       "variable HOME=/nowhere\nvariable EMPTY=\nfunction"));
  EXPECT_THAT(result.output, testing::Not(HasSubstr("wrong")));
  EXPECT_THAT(result.output, HasSubstr("sum 19\n"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, BuiltProgramTest,
                         testing::Values("report_dynamic_pie", "report_dynamic_nopie",
                                         "report_static_pie", "report_static_nopie"));

TEST_F(LoaderTest, RunsPrograms) {
  for (const char* path : {"/bin/echo", "/usr/bin/printf"}) {
    Image image;
    const Result<Entry> entry = load(program_of(path, {"hello"}), image.space, image.writer());
    ASSERT_TRUE(entry.ok()) << entry.error().message;
    const Outcome result = run(image, *entry);
    EXPECT_EQ(result.status, 0);
    EXPECT_THAT(result.output, HasSubstr("hello"));
  }
}

TEST_F(LoaderTest, PlacesProgramAndInterpreterWhereTheWindowSays) {
  Image image;
  const Result<Entry> entry = load(program_of("/bin/ls"), image.space, image.writer());
  ASSERT_TRUE(entry.ok()) << entry.error().message;
  EXPECT_EQ(image.space.find(kPieBase)->name, "/bin/ls");
  EXPECT_EQ(image.space.find(kPieBase)->offset, 0u);
  EXPECT_THAT(image.space.find(kInterpreterBase)->name, HasSubstr("ld-linux"));
  EXPECT_GE(entry->pc, kInterpreterBase);
  EXPECT_GT(entry->brk_start, kPieBase);
  EXPECT_EQ(entry->brk_start % 4096, 0u);
  EXPECT_THAT(image.space.maps(), HasSubstr("[stack]\n"));
}

TEST_F(LoaderTest, NothingIsWrittenBehindAFilesBytes) {
  Image image;
  ASSERT_TRUE(load(program_of("/bin/ls"), image.space, image.writer()).ok());
  const std::string bytes = read_file("/bin/ls");
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(bytes.data());
  const auto* segment = reinterpret_cast<const Elf64_Phdr*>(bytes.data() + header->e_phoff);
  std::uint64_t expected = 0, written = 0;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segment[i].p_type == PT_LOAD) expected += segment[i].p_filesz;
  }
  for (const auto& [address, data] : image.writes) {
    if (address < kInterpreterBase) written += data.size();
  }
  EXPECT_EQ(written, expected);
}

TEST_F(LoaderTest, ScriptsRunTheirInterpreter) {
  const std::string script = file("script", "#! /bin/echo  two words \nrest\n");
  Image image;
  const Result<Entry> entry = load(program_of(script, {"last"}), image.space, image.writer());
  ASSERT_TRUE(entry.ok()) << entry.error().message;
  EXPECT_EQ(run(image, *entry).output, "two words " + script + " last\n");

  const std::string outer = file("outer", "#!" + script);
  const Result<Program> followed = follow_scripts(program_of(outer, {"x"}));
  ASSERT_TRUE(followed.ok());
  EXPECT_EQ(followed->path, "/bin/echo");
  EXPECT_EQ(followed->arguments,
            (std::vector<std::string>{"/bin/echo", "two words", script, outer, "x"}));
}

TEST_F(LoaderTest, RefusesBadScripts) {
  EXPECT_EQ(refusal(file("a", "#!\n")).code, ENOEXEC);
  EXPECT_EQ(refusal(file("b", "#!  \t \n")).code, ENOEXEC);
  EXPECT_EQ(refusal(file("c", "#!/" + std::string(400, 'x') + "\n")).code, ENOEXEC);
  const Error missing = refusal(file("d", "#!/no/such/interpreter -x\n"));
  EXPECT_EQ(missing.code, ENOENT);
  EXPECT_THAT(missing.message, HasSubstr("/no/such/interpreter"));
  const std::string loop = directory_ + "/loop";
  EXPECT_EQ(refusal(file("loop", "#!" + loop + "\n")).code, ELOOP);
}

TEST_F(LoaderTest, RefusesWhatIsNoProgram) {
  const Error nothing = refusal(directory_ + "/nothing");
  EXPECT_EQ(nothing.code, ENOENT);
  EXPECT_THAT(nothing.message, HasSubstr(directory_ + "/nothing"));
  EXPECT_EQ(refusal("/etc/passwd/x").code, ENOENT);
  const Error folder = refusal(directory_);
  EXPECT_EQ(folder.code, EACCES);
  EXPECT_THAT(folder.message, HasSubstr("is a directory"));
  const Error plain = refusal(file("plain", read_file("/bin/true"), 0644));
  EXPECT_EQ(plain.code, EACCES);
  EXPECT_THAT(plain.message, HasSubstr("chmod +x"));
  EXPECT_EQ(refusal("/dev/null").code, EACCES);
  for (const char* bytes : {"", "\x7f",
                            "\x7f"
                            "ELF",
                            "hello\n"}) {
    const Error error = refusal(file("text", bytes));
    EXPECT_EQ(error.code, ENOEXEC);
    EXPECT_THAT(error.message, HasSubstr("is not"));
  }
}

TEST_F(LoaderTest, NamesTheOtherMachine) {
  const auto other = [this](unsigned machine, int bits) {
    return refusal(mutant([=](std::string& bytes, Elf64_Ehdr& header, Elf64_Phdr*) {
      header.e_machine = static_cast<Elf64_Half>(machine);
      bytes[EI_CLASS] = static_cast<char>(bits);
    }));
  };
  EXPECT_THAT(
      other(EM_386, ELFCLASS32).message,
      HasSubstr("is a 32-bit program; xenspan runs 64-bit x86-64 programs: rebuild with -m64"));
  EXPECT_THAT(other(EM_X86_64, ELFCLASS32).message, HasSubstr("32-bit")) << "x32";
  EXPECT_THAT(other(EM_AARCH64, ELFCLASS64).message, HasSubstr("aarch64"));
  EXPECT_THAT(other(EM_ARM, ELFCLASS32).message, HasSubstr(" arm;"));
  EXPECT_THAT(other(4321, ELFCLASS64).message, HasSubstr("4321"));
  EXPECT_EQ(other(EM_AARCH64, ELFCLASS64).code, ENOEXEC);
}

TEST_F(LoaderTest, RefusesOtherTypes) {
  const auto type = [this](unsigned value) {
    return refusal(mutant([=](std::string&, Elf64_Ehdr& header, Elf64_Phdr*) {
      header.e_type = static_cast<Elf64_Half>(value);
    }));
  };
  EXPECT_THAT(type(ET_REL).message, HasSubstr("object file"));
  EXPECT_THAT(type(ET_CORE).message, HasSubstr("core dump"));
  EXPECT_EQ(type(77).code, ENOEXEC);
  EXPECT_THAT(refusal(mutant([](std::string&, Elf64_Ehdr& header, Elf64_Phdr*) {
                header.e_entry = 0;
              })).message,
              HasSubstr("shared library"));
}

TEST_F(LoaderTest, RefusesHostileHeaders) {
  const auto first_load = [](Elf64_Phdr* segment) {
    while (segment->p_type != PT_LOAD) ++segment;
    return segment;
  };
  const auto broken = [&](auto change) {
    const Error error =
        refusal(mutant([&](std::string& bytes, Elf64_Ehdr& header, Elf64_Phdr* segments) {
          change(bytes, header, *first_load(segments));
        }));
    EXPECT_EQ(error.code, ENOEXEC) << error.message;
    return error.message;
  };
  EXPECT_THAT(broken([](auto&, auto& header, auto&) { header.e_phoff = ~std::uint64_t{0}; }),
              HasSubstr("outside the file"));
  broken([](auto&, auto& header, auto&) { header.e_phnum = 0; });
  broken([](auto&, auto& header, auto&) { header.e_phnum = 0xffff; });
  broken([](auto&, auto& header, auto&) { header.e_phentsize = 1; });
  broken([](auto&, auto& header, auto&) { header.e_entry = 0x10; });
  broken([](auto&, auto&, auto& load) { load.p_filesz = ~std::uint64_t{0}; });
  EXPECT_THAT(broken([](auto&, auto&, auto& load) { load.p_filesz = load.p_memsz = 1 << 30; }),
              HasSubstr("cut off"));
  EXPECT_THAT(broken([](auto&, auto&, auto& load) { load.p_memsz = std::uint64_t{1} << 46; }),
              HasSubstr("overlap"));
  broken([](auto&, auto&, auto& load) { load.p_memsz = ~std::uint64_t{0}; });
  broken([](auto&, auto&, auto& load) { load.p_vaddr = ~std::uint64_t{0} << 12; });
  broken([](auto&, auto&, auto& load) { load.p_vaddr += 1; });
  broken([](auto&, auto&, auto& load) { load.p_offset = ~std::uint64_t{0} << 12; });
  broken([](auto&, auto&, auto& load) { load.p_align = 0x1001; });
  EXPECT_THAT(broken([](auto&, auto&, auto& load) {
                load.p_vaddr = load.p_offset + (std::uint64_t{1} << 45);
              }),
              HasSubstr("outside the guest's"));
  EXPECT_THAT(broken([](auto&, auto& header, auto& load) {
                header.e_type = ET_EXEC;
                load.p_vaddr = load.p_offset;
              }),
              HasSubstr("outside the guest's"));
  broken([](std::string& bytes, auto&, auto&) { bytes.resize(100); });
}

TEST_F(LoaderTest, NamesTheMissingInterpreter) {
  const Error error = refusal(mutant([](std::string& bytes, Elf64_Ehdr&, Elf64_Phdr*) {
    const std::size_t at = bytes.find("/lib64/ld-linux");
    bytes[at + 1] = 'X';
  }));
  EXPECT_EQ(error.code, ENOENT);
  EXPECT_THAT(error.message, HasSubstr("/Xib64/ld-linux-x86-64.so.2"));
  EXPECT_THAT(error.message, HasSubstr("libc6"));
}

TEST_F(LoaderTest, RefusesArgumentsLargerThanAQuarterOfTheStack) {
  Image image;
  Program program = program_of("/bin/true");
  program.arguments.assign(70, std::string(30000, 'x'));
  const Result<Entry> many = load(program, image.space, image.writer());
  ASSERT_FALSE(many.ok());
  EXPECT_EQ(many.error().code, E2BIG);
  program.arguments = {"/bin/true", std::string(131072, 'x')};
  EXPECT_EQ(load(program, image.space, image.writer()).error().code, E2BIG);
  program.arguments = {"/bin/true", std::string(131071, 'x')};
  EXPECT_TRUE(load(program, image.space, image.writer()).ok());
}

TEST_F(LoaderTest, SaysWhenTheDomainIsTooSmall) {
  AddressSpace space(1 << 20);
  const Result<Entry> entry = load(program_of("/bin/true"), space, [](auto, auto, auto) {});
  ASSERT_FALSE(entry.ok());
  EXPECT_EQ(entry.error().code, ENOMEM);
  EXPECT_THAT(entry.error().message, HasSubstr("--memory"));
}

// Whatever stands in the headers: an answer, and no byte written where nothing is mapped.
TEST_F(LoaderTest, RandomHeadersNeverWriteOutsideMappings) {
  std::mt19937_64 random(5);
  const std::string original = read_file("/bin/true");
  int loaded = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = original;
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0; --changes) {
      const std::size_t at = EI_NIDENT + random() % (900 - EI_NIDENT);
      const std::uint64_t value = random() >> (random() % 64);
      std::memcpy(&bytes[at], &value, 1 << random() % 4);
    }
    Image image;
    const std::string path = file("fuzz", bytes);
    const Result<Entry> entry = load(program_of(path), image.space, image.writer());
    ASSERT_TRUE(image.writes_are_mapped()) << i;
    if (entry.ok()) {
      ++loaded;
      ASSERT_TRUE(in_window(entry->pc));
      ASSERT_NE(image.space.find(entry->pc), nullptr);
    } else {
      ASSERT_FALSE(entry.error().message.empty());
    }
  }
  EXPECT_GT(loaded, 0) << "some changes do not matter";
}

TEST_F(LoaderTest, FindsProgramsAsAShellDoes) {
  file("bin1/tool", "#!/bin/sh\n", 0644);
  const std::string second = file("bin2/tool", "#!/bin/sh\n");
  fs::create_directories(directory_ + "/bin1/folder");
  const std::string list = "/no/such:" + directory_ + "/bin1:" + directory_ + "/bin2";
  EXPECT_EQ(*find_program("tool", list, "/"), second) << "not executable is passed over";
  EXPECT_EQ(find_program("tool", directory_ + "/bin1", "/").error().code, EACCES);
  EXPECT_EQ(find_program("folder", list, "/").error().code, EACCES);
  const Error unknown = find_program("no-such-tool", list, "/").error();
  EXPECT_EQ(unknown.code, ENOENT);
  EXPECT_THAT(unknown.message, HasSubstr("no-such-tool: command not found"));
  EXPECT_EQ(find_program("", list, "/").error().code, ENOENT);
  EXPECT_EQ(*find_program("./tool", "", directory_ + "/bin2"), second);
  EXPECT_EQ(*find_program("bin2/tool", "", directory_), second);
  EXPECT_EQ(*find_program("tool", "/no/such::/bin", directory_ + "/bin2"), second)
      << "an empty element is the working directory";
  EXPECT_EQ(*find_program("tool", "bin2", directory_), second);
  EXPECT_EQ(find_program("bin1/tool", list, directory_).error().code, EACCES);
  EXPECT_EQ(find_program("./absent", list, directory_).error().code, ENOENT);
  EXPECT_EQ(*find_program("true", "", directory_), "/bin/true");
}

TEST(InitialStack, StringsOfArgumentsAndEnvironmentTouch) {
  StackContents contents;
  contents.arguments = {"program", "a"};
  contents.environment = {"B=c"};
  contents.executable = "/program";
  contents.random.assign(16, 0xab);
  contents.numbers = {{AT_PAGESZ, 4096}};
  constexpr std::uint64_t kTop = 0x100000;
  for (int extra = 0; extra < 40; ++extra) {
    contents.arguments[1] = std::string(static_cast<std::size_t>(extra), 'a');
    const StackImage image = build_stack(contents, kTop);
    ASSERT_EQ(image.sp % 16, 0u);
    ASSERT_EQ(image.sp + image.bytes.size(), kTop);
    const auto* words = reinterpret_cast<const std::uint64_t*>(image.bytes.data());
    const auto text = [&](std::uint64_t at) {
      return std::string(reinterpret_cast<const char*>(image.bytes.data() + (at - image.sp)));
    };
    ASSERT_EQ(words[0], 2u);
    ASSERT_EQ(text(words[1]), "program");
    ASSERT_EQ(words[2], words[1] + 8);
    ASSERT_EQ(text(words[2]), contents.arguments[1]);
    ASSERT_EQ(words[3], 0u);
    ASSERT_EQ(words[4], words[2] + contents.arguments[1].size() + 1);
    ASSERT_EQ(text(words[4]), "B=c");
    ASSERT_EQ(words[5], 0u);
    ASSERT_EQ(words[6], static_cast<std::uint64_t>(AT_PAGESZ));
    ASSERT_EQ(std::memcmp(&words[6], image.auxv.data(), image.auxv.size()), 0);
  }
}

}  // namespace
}  // namespace xenspan::hypervisor::usermode
