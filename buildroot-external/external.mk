include $(sort $(wildcard $(BR2_EXTERNAL_BERRYMSE_PATH)/package/*/*.mk))
