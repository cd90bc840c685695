# XENSPAN_CXX20: puts -std=c++20 into CXX, or stops when the compiler cannot do what the code uses.
AC_DEFUN([XENSPAN_CXX20], [
  CXX="$CXX -std=c++20"
  AC_CACHE_CHECK([whether $CXX supports C++20], [xenspan_cv_cxx20],
    [AC_LANG_PUSH([C++])
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[
      #include <atomic>
      #include <bit>
      #include <concepts>
      #include <span>
      template <std::integral T> T twice(T x) { return static_cast<T>(2 * x); }
      struct Point { int x = 0, y = 0; };
    ]], [[
      Point point{.x = twice(1), .y = 2};
      std::span<Point> points(&point, 1);
      std::atomic<int> word{std::popcount(static_cast<unsigned>(points[0].x))};
      word.wait(0);
    ]])], [xenspan_cv_cxx20=yes], [xenspan_cv_cxx20=no])
    AC_LANG_POP([C++])])
  AS_IF([test "$xenspan_cv_cxx20" != yes],
    [AC_MSG_ERROR([the C++ compiler does not support C++20: install g++ 12 or newer, or set CXX])])
])

# XENSPAN_STATIC_LINK: xenspan_cv_static_link tells whether a static program can be linked.
AC_DEFUN([XENSPAN_STATIC_LINK], [
  AC_CACHE_CHECK([whether static programs can be linked], [xenspan_cv_static_link],
    [AC_LANG_PUSH([C++])
    xenspan_saved_ldflags=$LDFLAGS
    LDFLAGS="$LDFLAGS -static"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <cstdio>]], [[std::puts("");]])],
      [xenspan_cv_static_link=yes], [xenspan_cv_static_link=no])
    LDFLAGS=$xenspan_saved_ldflags
    AC_LANG_POP([C++])])
])

# XENSPAN_NEED(VARIABLE, MODULES, DEBIAN PACKAGE, [WHY]): PKG_CHECK_MODULES for what cannot be done without.
AC_DEFUN([XENSPAN_NEED], [
  PKG_CHECK_MODULES([$1], [$2], [],
    [AC_MSG_ERROR([pkg-config does not find $2: install $3 (Debian's name).m4_ifval([$4], [ $4])
$$1_PKG_ERRORS])])
])
