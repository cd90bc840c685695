# XENSPAN_FUZZER: looks for a clang++ that links libFuzzer with the address and undefined behaviour sanitizers.
# FUZZ_CXX is its name; have_fuzzer says whether it works.
AC_DEFUN([XENSPAN_FUZZER], [
  AC_ARG_VAR([FUZZ_CXX], [clang++ with libFuzzer, for `make check-fuzz'])
  AS_IF([test -z "$FUZZ_CXX"],
    [AC_CHECK_PROGS([FUZZ_CXX], [clang++ clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14], [no])])
  have_fuzzer=no
  AS_IF([test "$FUZZ_CXX" != no], [
    AC_MSG_CHECKING([whether $FUZZ_CXX links libFuzzer])
    AC_LANG_PUSH([C++])
    xenspan_saved_CXX=$CXX xenspan_saved_CXXFLAGS=$CXXFLAGS
    CXX=$FUZZ_CXX CXXFLAGS="-std=c++20 -fsanitize=fuzzer,address,undefined"
    AC_LINK_IFELSE([AC_LANG_SOURCE([[
      #include <cstddef>
      #include <cstdint>
      extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *, std::size_t) { return 0; }
    ]])], [have_fuzzer=yes])
    CXX=$xenspan_saved_CXX CXXFLAGS=$xenspan_saved_CXXFLAGS
    AC_LANG_POP([C++])
    AC_MSG_RESULT([$have_fuzzer])
  ])
])
