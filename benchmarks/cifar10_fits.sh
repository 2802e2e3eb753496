#!/usr/bin/env bash
# Trains the CIFAR-10 networks that adpur ships, and the two weaker diffusion models of docs/cifar10.md.
# Run it twice, side by side: `cifar10_fits.sh first` and `cifar10_fits.sh second`, one core each (planned for 9 core
# hours in all). Every fit resumes: after a crash or a reboot the same two commands go on. Wants ADPUR_CIFAR10 and adpur on PATH.
set -euo pipefail
export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2  # so that any x86 machine continues with the same instructions
export OMP_NUM_THREADS=1 WANDB_MODE=${WANDB_MODE:-offline}
EMA='[{class_path: adpur.EMA, init_args: {decay: 0.999}}]'

diffusion() {  # a shorter fit, with a schedule of its own
    adpur fit -c diffusion_cifar10 --run "runs/diffusion_cifar10_$1" --model.export="runs/weights/cifar10/diffusion_$1" \
        --trainer.max_steps="$2" --trainer.callbacks="$EMA"
}

case ${1:?first or second} in
first)
    adpur fit -c classifier_cifar10
    adpur fit -c diffusion_cifar10 ;;
second)
    diffusion half_hour 2400
    diffusion 90_minutes 7200 ;;
*)
    echo "expected first or second, got $1" >&2; exit 2 ;;
esac
