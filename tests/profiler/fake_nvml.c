/* A libnvidia-ml.so.1 that says what the file named by FAKE_NVML_STATE says, read at every call.
 * Lines of that file: "gpu NAME", "uuid TEXT", "energy_mj N", "power_mw N", "used N", "clock_mhz N",
 * "reasons N", "fail FUNCTION CODE" (that call returns the code), "hang FUNCTION".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_FOUND 6

typedef struct { unsigned long long total, free, used; } Memory;

static char state[8][2][96];

static void read_state(const char *wanted, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    value[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        size_t length = strlen(wanted);
        if (!strncmp(line, wanted, length) && line[length] == ' ')
            snprintf(value, size, "%s", line + length + 1);
    }
    if (file) fclose(file);
}

static int injected(const char *function) {
    char key[128], value[96];
    snprintf(key, sizeof key, "hang %s", function);
    read_state(key, value, sizeof value);
    if (value[0]) sleep(600);
    snprintf(key, sizeof key, "fail %s", function);
    read_state(key, value, sizeof value);
    return value[0] ? atoi(value) : SUCCESS;
}

#define ASK(name) do { int code = injected(name); if (code) return code; } while (0)

static int number(const char *key, unsigned long long *value) {
    char text[96];
    read_state(key, text, sizeof text);
    *value = strtoull(text, NULL, 10);
    return SUCCESS;
}

int nvmlInit_v2(void) { ASK("nvmlInit"); return SUCCESS; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; ASK("nvmlInit"); return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    char name[96];
    ASK("nvmlDeviceGetCount");
    read_state("gpu", name, sizeof name);
    *count = name[0] ? 1 : 0;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ASK("nvmlDeviceGetHandleByIndex");
    *handle = state;
    return index ? INVALID_ARGUMENT : SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    char ours[96];
    ASK("nvmlDeviceGetHandleByUUID");
    read_state("uuid", ours, sizeof ours);
    *handle = state;
    return strcmp(uuid, ours) ? NOT_FOUND : SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned size) {
    (void)handle;
    ASK("nvmlDeviceGetName");
    read_state("gpu", name, size);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned size) {
    (void)handle;
    read_state("uuid", uuid, size);
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy) {
    (void)handle;
    ASK("nvmlDeviceGetTotalEnergyConsumption");
    return number("energy_mj", energy);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power) {
    unsigned long long value;
    (void)handle;
    ASK("nvmlDeviceGetPowerUsage");
    number("power_mw", &value);
    *power = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) {
    (void)handle;
    ASK("nvmlDeviceGetMemoryInfo");
    memory->total = 80000000000ULL;
    number("used", &memory->used);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *clock) {
    unsigned long long value;
    (void)handle;
    (void)kind;
    ASK("nvmlDeviceGetClockInfo");
    number("clock_mhz", &value);
    *clock = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    (void)handle;
    ASK("nvmlDeviceGetCurrentClocksThrottleReasons");
    return number("reasons", reasons);
}
