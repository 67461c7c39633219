################################################################################
#
# berrymse
#
################################################################################

# From the repository that this tree is in. What is built or fetched there
# stays there. For a release instead, in local.mk or here: BERRYMSE_VERSION,
# _SITE, _SITE_METHOD = http, and a hash file; nothing else changes.
BERRYMSE_VERSION = local
BERRYMSE_SITE = $(realpath $(BR2_EXTERNAL_BERRYMSE_PATH)/..)
BERRYMSE_SITE_METHOD = local
BERRYMSE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude /target --exclude /tests --exclude /fuzz \
	--exclude node_modules --exclude /buildroot-external
BERRYMSE_LICENSE = MIT or Apache-2.0
BERRYMSE_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

# As Cargo.toml has it: measured in docs/performance.md. The cargo
# infrastructure sets others in the environment, which goes before the file.
BERRYMSE_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="s" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1" \
	CARGO_PROFILE_RELEASE_PANIC="abort"

# A tarball gets its crates when it is downloaded; a folder does not.
ifeq ($(BERRYMSE_SITE_METHOD),local)
define BERRYMSE_VENDOR
	mkdir -p $(@D)/.cargo $(BR_CARGO_HOME)
	cd $(@D) && $(TARGET_MAKE_ENV) CARGO_HOME=$(BR_CARGO_HOME) \
		flock $(BR_CARGO_HOME)/.br-lock \
		cargo vendor --locked VENDOR >.cargo/config.toml
endef
BERRYMSE_PRE_BUILD_HOOKS += BERRYMSE_VENDOR
endif

# All that it asks of the machine it finds by itself: cameras by their
# numbers, RAUC on the bus. The groups' names are those of appliance/root.
ifeq ($(BR2_PACKAGE_BERRYMSE_APPLIANCE),y)
define BERRYMSE_USERS
	berrymse -1 berrymse -1 ! - - video BerryMSE
	messagebus -1 messagebus -1 ! - - - The bus of berrymse and RAUC
endef

endif

$(eval $(cargo-package))
