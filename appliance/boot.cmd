# U-Boot script for every machine: chooses the slot that RAUC selected, counts the attempt and starts the
# slot.
#
# Variables, as RAUC defines them: BOOT_ORDER ("A B": A first), BOOT_A_LEFT and BOOT_B_LEFT (attempts
# left). Each start uses one attempt; a working system resets the counter of its slot to 3. When the
# counter reaches 0, U-Boot starts the other slot.
#
# They are stored separately from U-Boot's own environment, whose location is compiled in and differs
# between machines, and which is not redundant in most builds. Instead, two copies are stored at fixed
# locations on the card, each with a checksum and a sequence number, in the format that libubootenv and
# U-Boot call "redundant". Only the older copy is overwritten, so that one valid copy always remains.
#
# BOOT_FILES and BOOT_FILES_LEFT: the half of the boot partition whose files are on trial (its first block, as
# `part start` prints it), and the attempts left. Each start from that half uses one of these attempts, not one
# of the slot's. A working system removes both. When the counter reaches 0, the script writes the former master boot
# record back, which refers to the half with the former files.
#
# appliance/assemble replaces @...@ with hexadecimal numbers; positions are in blocks of 512 bytes.

echo "BerryMSE: ${devtype} ${devnum}"

# Memory: the kernel runs at kernel_addr_r; the memory from 128 MiB above that address is free on every
# machine with 512 MiB.
setexpr packed ${kernel_addr_r} + 8000000
setexpr ramdisk ${kernel_addr_r} + a000000
setexpr copy_1 ${kernel_addr_r} + c000000
setexpr copy_2 ${copy_1} + 100000
setexpr text ${copy_1} + 200000
setexpr sum ${copy_1} + 300000
setexpr sum_1 ${sum} + 1
setexpr sum_2 ${sum} + 2
setexpr sum_3 ${sum} + 3
setexpr right ${sum} + 10
setexpr right_1 ${sum} + 11
setexpr right_2 ${sum} + 12
setexpr right_3 ${sum} + 13
setexpr former ${copy_1} + 400000
setexpr former_sum ${former} + 200
setexpr former_disk ${former} + 1b8
setexpr record ${former} + 1000
setexpr record_disk ${record} + 1b8

# Layout of a copy: CRC (4 bytes, little-endian), sequence number (1 byte), variables. The crc32 command
# stores its result in little-endian order in U-Boot builds with a single hash algorithm (rpi_arm64), and in
# big-endian order in builds with several (qemu_arm64). To detect the order, the script computes the CRC of
# one zero byte, which is d202ef8d.
mw.b ${copy_1} 0 1
crc32 ${copy_1} 1 ${sum}
if itest.l *${sum} == d202ef8d; then
    setenv sum_of 'crc32 ${data} ${length} ${right}'
else
    setenv sum_of 'crc32 ${data} ${length} ${sum}; cp.b ${sum_3} ${right} 1; cp.b ${sum_2} ${right_1} 1; cp.b ${sum_1} ${right_2} 1; cp.b ${sum} ${right_3} 1'
fi
setenv sum_up 'setexpr data ${copy} + 5; setenv length @ENV_DATA@; run sum_of'
setenv whole 'run sum_up; itest.l *${right} == *${copy}'

setenv current
setenv number 0
mw.b ${copy_1} 0 @ENV_SIZE@
mw.b ${copy_2} 0 @ENV_SIZE@
setenv copy ${copy_1}
if ${devtype} read ${copy_1} @ENV_1@ @ENV_BLOCKS@; then
    if run whole; then
        setenv current 1
        setexpr counter ${copy_1} + 4
        setexpr.b number *${counter}
    fi
fi
setenv copy ${copy_2}
if ${devtype} read ${copy_2} @ENV_2@ @ENV_BLOCKS@; then
    if run whole; then
        setexpr counter ${copy_2} + 4
        setexpr.b number_2 *${counter}
        # The newer copy has the higher sequence number, which wraps from ff to 0.
        setenv newer
        if test -z "${current}"; then setenv newer yes; fi
        if itest 0x${number_2} -gt 0x${number}; then setenv newer yes; fi
        if test "${number_2}" = 0; then if test "${number}" = ff; then setenv newer yes; fi; fi
        if test "${number_2}" = ff; then if test "${number}" = 0; then if test -n "${current}"; then setenv newer; fi; fi; fi
        if test -n "${newer}"; then
            setenv current 2
            setenv number ${number_2}
        fi
    fi
fi
setenv BOOT_ORDER
setenv BOOT_A_LEFT
setenv BOOT_B_LEFT
setenv BOOT_FILES
setenv BOOT_FILES_LEFT
if test -n "${current}"; then
    if test "${current}" = 1; then setexpr data ${copy_1} + 5; else setexpr data ${copy_2} + 5; fi
    env import -b ${data} @ENV_DATA@ BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT BOOT_FILES BOOT_FILES_LEFT
else
    echo "BerryMSE: both copies of the boot state are invalid: using the defaults"
fi
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

# Overwrites the older copy.
setenv save 'setexpr number ${number} + 1; setexpr number ${number} % 100; if test "${current}" = 1; then setenv copy ${copy_2}; setenv block @ENV_2@; setenv current 2; else setenv copy ${copy_1}; setenv block @ENV_1@; setenv current 1; fi; mw.b ${copy} 0 @ENV_SIZE@; setexpr data ${copy} + 5; env export -b -s 0x@ENV_DATA@ ${data} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT BOOT_FILES BOOT_FILES_LEFT; setexpr counter ${copy} + 4; mw.b ${counter} ${number} 1; run sum_up; cp.b ${right} ${copy} 4; ${devtype} write ${copy} ${block} @ENV_BLOCKS@'

# Are the files in this half on trial?
setenv half
setenv trial
part start ${devtype} ${devnum} 1 half
if test -n "${BOOT_FILES}"; then if test "${BOOT_FILES}" = "${half}"; then setenv trial yes; fi; fi
if test -n "${trial}"; then
    if itest 0x${BOOT_FILES_LEFT} -gt 0; then
        setexpr BOOT_FILES_LEFT ${BOOT_FILES_LEFT} - 1
        echo "BerryMSE: boot files on trial, ${BOOT_FILES_LEFT} more attempts"
    else
        setenv trial
        setenv BOOT_FILES
        setenv BOOT_FILES_LEFT
        # The copy must be complete and belong to this card.
        setenv back
        mw.b ${former} 0 400
        if ${devtype} read ${former} @FORMER@ 2; then
            if ${devtype} read ${record} 0 1; then
                setenv data ${former}
                setenv length 200
                run sum_of
                if itest.l *${right} == *${former_sum}; then
                    if itest.l *${former_disk} == *${record_disk}; then setenv back yes; fi
                fi
            fi
        fi
        if test -n "${back}"; then
            echo "BerryMSE: no attempts left with these boot files: returning to the former ones"
            # In this order: a power cut in between starts the former files, for which the variables have no meaning.
            if ${devtype} write ${former} 0 1; then
                run save
                reset
            fi
        fi
        echo "BerryMSE: no attempts left with these boot files, but the former ones are not available"
    fi
fi

setenv slot
for candidate in ${BOOT_ORDER}; do
    if test -z "${slot}"; then
        if test "${candidate}" = A; then
            if itest 0x${BOOT_A_LEFT} -gt 0; then
                test -n "${trial}" || setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
                setenv slot A; setenv left ${BOOT_A_LEFT}; setenv boot @BOOT_A@; setenv root @ROOT_A@
            fi
        fi
        if test "${candidate}" = B; then
            if itest 0x${BOOT_B_LEFT} -gt 0; then
                test -n "${trial}" || setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
                setenv slot B; setenv left ${BOOT_B_LEFT}; setenv boot @BOOT_B@; setenv root @ROOT_B@
            fi
        fi
    fi
done
if test -z "${slot}"; then
    echo "BerryMSE: no attempts left in either slot: resetting both counters"
    setenv BOOT_A_LEFT 3
    setenv BOOT_B_LEFT 3
    run save
    reset
fi
run save
echo "BerryMSE: slot ${slot}, ${left} more attempts"

# The slot's own settings: kernel (compressed with gzip or for the command in decompress; a zImage with
# start=bootz, for 32-bit machines), optional initrd and device tree, arguments.
setenv decompress
setenv kernel
setenv initrd
setenv tree
setenv arguments
setenv start
if load ${devtype} ${devnum}:${boot} ${text} slot.txt; then
    env import -t ${text} ${filesize} decompress kernel initrd tree arguments start
fi
# env import deletes each listed variable that the file does not set.
test -n "${decompress}" || setenv decompress unzip
setenv unpack '${decompress} ${packed} ${kernel_addr_r}'
# A zImage decompresses itself to the start of the 128 MiB block in which it lies, and Linux does not use the memory
# below that block. An offset of 64 MiB leaves room for the decompressed kernel.
if test "${start}" = bootz; then
    setenv unpack true
    setexpr packed ${kernel_addr_r} + 4000000
fi
# The identity of these boot files, in the first line of the list. The running system compares it with its own.
setenv identity
if load ${devtype} ${devnum}:1 ${text} boot-files.txt 200; then env import -t ${text} ${filesize} identity; fi
part uuid ${devtype} ${devnum}:${root} root_uuid
setenv ramdisk_at -
if load ${devtype} ${devnum}:${boot} ${packed} ${kernel} && run unpack; then
    if test -n "${initrd}"; then
        load ${devtype} ${devnum}:${boot} ${ramdisk} ${initrd} && setenv ramdisk_at ${ramdisk}:${filesize}
    fi
    if test -n "${tree}"; then
        load ${devtype} ${devnum}:${boot} ${fdt_addr_r} ${tree} && setenv fdt_addr ${fdt_addr_r}
    fi
    # The Pi's firmware passes its own arguments (cmdline.txt, the MAC address) in the device tree.
    setenv firmware
    if fdt addr ${fdt_addr}; then fdt get value firmware /chosen bootargs; fi
    # A panic restarts the machine, which uses another attempt.
    setenv bootargs "root=PARTUUID=${root_uuid} rootwait ro rauc.slot=${slot} berrymse.boot=${identity} panic=5 ${firmware} ${arguments}"
    if test "${start}" = bootz; then
        bootz ${packed} ${ramdisk_at} ${fdt_addr}
    else
        booti ${kernel_addr_r} ${ramdisk_at} ${fdt_addr}
    fi
fi
echo "BerryMSE: failed to start the kernel in slot ${slot}"
reset
