################################################################################
#
# berrymse
#
################################################################################

# The source is the repository that contains this tree, excluding files that
# were built or downloaded there. To build a release instead, set
# BERRYMSE_VERSION, _SITE and _SITE_METHOD = http in local.mk or here, and
# add a hash file.
BERRYMSE_VERSION = local
BERRYMSE_SITE = $(realpath $(BR2_EXTERNAL_BERRYMSE_PATH)/..)
BERRYMSE_SITE_METHOD = local
BERRYMSE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude /target --exclude /tests --exclude /fuzz \
	--exclude node_modules --exclude /buildroot-external
BERRYMSE_LICENSE = MIT or Apache-2.0
BERRYMSE_LICENSE_FILES = LICENSE-MIT LICENSE-APACHE

# The release profile of Cargo.toml, measured in docs/performance.md. The cargo
# infrastructure sets other values in the environment, which take precedence
# over the file.
BERRYMSE_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="s" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1" \
	CARGO_PROFILE_RELEASE_PANIC="abort"

# Buildroot vendors the crates when it downloads a tarball, but not for a directory.
ifeq ($(BERRYMSE_SITE_METHOD),local)
define BERRYMSE_VENDOR
	mkdir -p $(@D)/.cargo $(BR_CARGO_HOME)
	cd $(@D) && $(TARGET_MAKE_ENV) CARGO_HOME=$(BR_CARGO_HOME) \
		flock $(BR_CARGO_HOME)/.br-lock \
		cargo vendor --locked VENDOR >.cargo/config.toml
endef
BERRYMSE_PRE_BUILD_HOOKS += BERRYMSE_VENDOR
endif

# The group names are those used in appliance/root.
ifeq ($(BR2_PACKAGE_BERRYMSE_APPLIANCE),y)
define BERRYMSE_USERS
	berrymse -1 berrymse -1 ! - - video BerryMSE
	messagebus -1 messagebus -1 ! - - - The bus of berrymse and RAUC
endef

endif

$(eval $(cargo-package))
