#!/usr/bin/env bash
# Half an hour on one GPU: a CIFAR-10 diffusion model of 6 M parameters, ADDT on it, and a table of
# DiffPure, SSNI-N and ADDT under exact PGD-20 EOT-10, in $OUT. The classifier is a published
# ResNet-56. The same command goes on where it was stopped; more minutes make better models:
#
#   ADPUR_CIFAR10=... ADPUR_CIFAR10_CLASSIFIER=resnet56-4bfd9763.th bash benchmarks/half_hour.sh
#   DIFFUSION=12:00:00 ADDT=04:00:00 IMAGES=1000 bash benchmarks/half_hour.sh     # a night
set -euo pipefail
: "${ADPUR_CIFAR10:?the folder of cifar-10-batches-py}"
: "${ADPUR_CIFAR10_CLASSIFIER:?a CIFAR-10 ResNet-56 checkpoint}"
OUT=${OUT:-runs/half_hour} DIFFUSION=${DIFFUSION:-00:08:00} ADDT=${ADDT:-00:06:00} IMAGES=${IMAGES:-256}
PRECISION=${PRECISION:-bf16-mixed} WIDTH=${WIDTH:-64}
EMA='{class_path: adpur.EMA, init_args: {decay: 0.999}}'
export WANDB_MODE=${WANDB_MODE:-offline}

adpur fit -c diffusion_cifar10_full --run "$OUT/diffusion" --model.export="$OUT/weights/diffusion" \
    --model.unet.block_out_channels="[$WIDTH, $((2 * WIDTH)), $((2 * WIDTH))]" \
    --model.unet.down_block_types="[DownBlock2D, DownBlock2D, DownBlock2D]" \
    --model.unet.up_block_types="[UpBlock2D, UpBlock2D, UpBlock2D]" \
    --model.unet.layers_per_block=2 --model.unet.norm_num_groups=16 --model.unet.dropout=0.0 \
    --model.lr=4e-4 --model.warmup=200 --trainer.callbacks="[$EMA, {class_path: adpur.SampleGrid}]" \
    --trainer.max_time="00:$DIFFUSION" --trainer.precision="$PRECISION"

adpur fit -c addt_cifar10_full --run "$OUT/addt" --model.export="$OUT/weights/addt" \
    --model.networks='{class_path: adpur.cifar10_classifier, init_args: {denoiser: '"$OUT/weights/diffusion"'}}' \
    --trainer.max_time="00:$ADDT" --trainer.precision="$PRECISION" --data.batch_size=128

sed -e "s#class_path: adpur.pretrained#class_path: adpur.cifar10_classifier#" \
    -e "s#classifier: runs/weights/cifar10_full/classifier, ##" -e "s#runs/weights/cifar10_full#$OUT/weights#g" \
    -e "s#t: 100}#t: 100, stride: 10}#" -e "s#adpur.Checkpointed#adpur.Exact#" \
    "$(dirname "$0")/../configs/ssni_eval_full.yaml" > "$OUT/table.yaml"
adpur test -c "$OUT/table.yaml" --run "$OUT/table" --data.limit="$IMAGES" --data.batch_size=64
