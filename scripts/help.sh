#!/bin/sh
# Prints what ./dev can do.
cat <<'END'
usage: ./dev COMMAND

  run [--model FILE] [--persona NAME] [--session N] [--threads N] [--data FOLDER]
                      build, fetch the default model, start a daemon and talk to a persona;
                      without a terminal: play one fixed turn and print the reply
  build [--cuda] [PRESET] [TARGET...]
                      build a preset: release (the default), debug, tsan, fuzz, release-clang
                      (--cuda: the CUDA backend too, fetching its compiler where there is none)
  cuda [find|cublas]  fetch the CUDA compiler where there is none; prints its path
                      (cublas: the folder of cuBLAS instead, which only gpu below has a use for)
  test [--quick|--long]
                      all tests; ends in one line "N passed, N failed, N skipped"
                      (--quick: the release build only; --long: what takes longer too)
  aarch64 [--long]    run the CPU's kernels for ARM under an emulator, and compare their bits
                      with this machine's
  check               format, clang-tidy, the source's own rules, scripts, spelling
  fuzz NAME [SECONDS] run a fuzz target (60 seconds unless told)
  sim [SEEDS [FIRST]] play the simulations (1000 seeds from 1 unless told)
  crash [N] [SEED]    kill a daemon N times (200) under 32 writing clients
  bench NAME [...]    run a benchmark, for instance: ./dev bench peer
  gpu [--report FOLDER] [--seconds N]
                      prove and measure the CUDA backend on this machine's card, in under 9
                      minutes and without network; writes docs/gpu/DATE-CARD.md
  gpu --pack FOLDER   pack all that needs, for a machine with neither network nor compiler
  gpu --rehearse      the same stages on emulated kernels, without a card
  sass [--check] [--arch ARCH] [--kernel TEXT]
                      show what the CUDA compiler made of each kernel: registers, local memory,
                      loops by kind of instruction; needs the built library, no card
  model               fetch and verify the default model; prints its path
  clean-room [run|test|cuda|cublas|gpu|base|shell] [--fresh]
                      run the README's commands in a bare Debian made for that
  image [--cuda] [TAG] [--base IMAGE|FILE.tar]
                      build the container image with docker, podman or buildah

Each command installs the Debian packages that it lacks, and says so. Programs land in
build/release/bin/. docs/HACKING.md tells the rest.
END
