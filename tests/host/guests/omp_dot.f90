! Fortran with OpenMP: a dot product and a matrix-vector product, in integers so that the order does not matter.
program omp_dot
  implicit none
  integer, parameter :: n = 1000000, m = 600
  integer(8), allocatable :: x(:), y(:), a(:, :), v(:), w(:)
  integer(8) :: dot, expected
  integer :: i, j

  allocate (x(n), y(n), a(m, m), v(m), w(m))
  !$omp parallel do
  do i = 1, n
    x(i) = i
    y(i) = mod(i, 7)
  end do
  dot = 0
  !$omp parallel do reduction(+:dot)
  do i = 1, n
    dot = dot + x(i)*y(i)
  end do
  expected = 0
  do i = 1, n
    expected = expected + int(i, 8)*mod(i, 7)
  end do
  if (dot /= expected) stop 1

  !$omp parallel do private(i)
  do j = 1, m
    v(j) = j
    do i = 1, m
      a(i, j) = i + j
    end do
  end do
  !$omp parallel do private(j)
  do i = 1, m
    w(i) = 0
    do j = 1, m
      w(i) = w(i) + a(i, j)*v(j)
    end do
  end do
  do i = 1, m
    if (w(i) /= int(i, 8)*m*(m + 1)/2 + int(m, 8)*(m + 1)*(2*m + 1)/6) stop 2
  end do
  print '(a,i0,1x,i0)', 'ok omp_dot ', dot, sum(w)
end program omp_dot
